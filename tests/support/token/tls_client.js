// tls_client.js PORT CA CHAIN KEY-FILE | PORT CA CHAIN ENGINE KEY-URI: one TLS connection of Node's. docs/AGENTS.md.
const tls = require('tls');
const fs = require('fs');

const [port, ca, chain, key, uri] = process.argv.slice(2);
const options = { host: 'localhost', port: Number(port), ca: fs.readFileSync(ca), cert: fs.readFileSync(chain) };
if (uri) {
    options.privateKeyEngine = key;
    options.privateKeyIdentifier = uri;
} else {
    options.key = fs.readFileSync(key);
}
const socket = tls.connect(options, () => socket.write('GET / HTTP/1.0\r\n\r\n'));
socket.on('data', (data) => {
    console.log(data.toString().split(' ')[1], socket.getProtocol());
    socket.destroy();
});
socket.on('error', (error) => {
    console.error(error.message);
    process.exit(1);
});
