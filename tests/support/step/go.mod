module attestd/tests/step

go 1.25.0

require (
	github.com/fxamacker/cbor/v2 v2.9.0
	go.step.sm/crypto v0.92.0
	golang.org/x/crypto v0.58.0
)
