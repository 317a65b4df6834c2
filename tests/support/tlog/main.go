// Reads a log with golang.org/x/mod/sumdb: its notes, its tiles (whose hashes are checked against the signed
// root as they are read), and for every entry and several older sizes the proofs that these give.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder struct{ dir string }

func (f folder) Height() int                                { return 8 }
func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := f.read(t)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// C2SP's paths are those of this package without the height, and with "entries" for its "data".
func path(t tlog.Tile) string {
	p := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(p, "tile/data/", "tile/entries/", 1)
}

func (f folder) read(t tlog.Tile) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(f.dir, path(t)))
	if err == nil || t.W == 1<<8 || t.L < 0 {
		return data, err
	}
	full := t
	full.W = 1 << 8
	if data, err = os.ReadFile(filepath.Join(f.dir, path(full))); err != nil {
		return nil, err
	}
	return data[:t.W*tlog.HashSize], nil
}

func check(err error) {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func entries(f folder, n int64) [][]byte {
	var all [][]byte
	for from := int64(0); from < n; from += 256 {
		width := n - from
		if width > 256 {
			width = 256
		}
		t := tlog.Tile{H: 8, L: -1, N: from / 256, W: int(width)}
		data, err := f.read(t)
		check(err)
		for i := int64(0); i < width; i++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				check(fmt.Errorf("bundle %s ends in an entry", path(t)))
			}
			end := 2 + int(binary.BigEndian.Uint16(data))
			all = append(all, data[2:end])
			data = data[end:]
		}
		if len(data) > 0 {
			check(fmt.Errorf("bundle %s has more than %d entries", path(t), width))
		}
	}
	return all
}

func main() {
	f := folder{os.Args[1]}
	vkey, err := os.ReadFile(os.Args[2])
	check(err)
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	check(err)
	bytes, err := os.ReadFile(filepath.Join(f.dir, "checkpoint"))
	check(err)
	signed, err := note.Open(bytes, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(signed.Text, "\n")
	if lines[0] != verifier.Name() {
		check(fmt.Errorf("checkpoint of %q", lines[0]))
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)
	var tree tlog.Tree
	tree.N = n
	copy(tree.Hash[:], root)
	hashes := tlog.TileHashReader(tree, f)
	for i, entry := range entries(f, n) {
		proof, err := tlog.ProveRecord(n, int64(i), hashes)
		check(err)
		check(tlog.CheckRecord(proof, n, tree.Hash, int64(i), tlog.RecordHash(entry)))
	}
	for _, old := range []int64{1, 2, 3, 100, 255, 256, 257, n - 1, n} {
		if old < 1 || old > n {
			continue
		}
		proof, err := tlog.ProveTree(n, old, hashes)
		check(err)
		was, err := tlog.TreeHash(old, hashes)
		check(err)
		check(tlog.CheckTree(proof, n, tree.Hash, old, was))
	}
	fmt.Printf("%s: %d entries\n", lines[0], n)
}
