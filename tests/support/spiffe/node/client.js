// A client of api.sock made of @grpc/grpc-js and @grpc/proto-loader alone, from the published protocols: calls one after
// another, whose outcomes are lines of JSON. SIGN and rotations are judged by Node's own crypto.
//   node client.js SOCKET WORKLOAD.PROTO SIGNER.PROTO HEALTH.PROTO COMMAND [ARGUMENT…]
'use strict';
const crypto = require('node:crypto');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [socket, ...rest] = process.argv.slice(2);
const protos = rest.splice(0, 3);
const [command, ...args] = rest;
const load = (file) => grpc.loadPackageDefinition(loader.loadSync(file, { keepCase: true, longs: Number, enums: String, defaults: true }));
const [workloads, signers, healths] = protos.map(load);
const client = (service) => new service('unix:' + socket, grpc.credentials.createInsecure());
const workload = client(workloads.SpiffeWorkloadAPI);
const signer = client(signers.attestd.v1.Signer);
const health = client(healths.grpc.health.v1.Health);

const say = (line) => console.log(JSON.stringify(line));
const sha = (data) => crypto.createHash('sha256').update(data).digest('hex');
const ended = (error) => say({ code: grpc.status[error.code] || String(error), message: error.details || '' });
const metadata = (...values) => {
    const made = new grpc.Metadata();
    values.forEach((value) => made.add('workload.spiffe.io', value));
    return made;
};
const mark = metadata('true');
const soon = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
const unary = (stub, method, request, seconds = 20, headers = new grpc.Metadata()) => new Promise((resolve, reject) =>
    stub[method](request, headers, soon(seconds), (error, answer) => (error ? reject(error) : resolve(answer))));
const stream = (call, show) => new Promise((resolve) => {
    call.on('data', (answer) => show(answer, call));
    call.on('error', (error) => { ended(error); resolve(); });
    call.on('end', resolve);
});

function derLength(data) {
    const octets = data[1] & 0x80 ? data[1] & 0x7f : 0;
    return 2 + octets + (octets ? data.readUIntBE(2, octets) : data[1]);
}

function showSvid(answer) {
    const one = answer.svids[0];
    const leaf = new crypto.X509Certificate(one.x509_svid.subarray(0, derLength(one.x509_svid)));
    const key = crypto.createPrivateKey({ key: one.x509_svid_key, format: 'der', type: 'pkcs8' });
    say({ svids: answer.svids.length, id: one.spiffe_id, names: leaf.subjectAltName, leaf: sha(leaf.raw), fits: leaf.checkPrivateKey(key),
        bundle: sha(one.bundle) });
}

async function sign() {
    const chain = await unary(signer, 'Chain', {});
    const digest = crypto.createHash('sha256').update('a trade').digest();
    const answer = await unary(signer, 'Sign', { algorithm: 'ALGORITHM_ECDSA', digest, key_id: chain.key_id });
    const key = new crypto.X509Certificate(chain.chain[0]).publicKey;
    say({ code: 'OK', id: chain.spiffe_id, store: chain.key_store, verified: crypto.verify('sha256', Buffer.from('a trade'), key, answer.signature),
        other: crypto.verify('sha256', Buffer.from('another trade'), key, answer.signature) });
}

async function token(audience) {
    const answer = await unary(workload, 'FetchJWTSVID', { audience: [audience] }, 20, mark);
    const bundle = await new Promise((resolve, reject) => {
        const call = workload.FetchJWTBundles({}, mark, soon(20));
        call.on('data', (one) => { resolve(one); call.cancel(); });
        call.on('error', reject);
    });
    const [head, body, signature] = answer.svids[0].svid.split('.');
    const { kid, alg } = JSON.parse(Buffer.from(head, 'base64url'));
    const jwk = JSON.parse(bundle.bundles['spiffe://bank.example']).keys.find((one) => one.kid === kid);
    const key = crypto.createPublicKey({ key: jwk, format: 'jwk' });
    const verified = crypto.verify('sha256', Buffer.from(head + '.' + body), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
    const { aud, sub } = JSON.parse(Buffer.from(body, 'base64url'));
    const judged = await unary(workload, 'ValidateJWTSVID', { audience, svid: answer.svids[0].svid }, 20, mark);
    say({ code: 'OK', id: answer.svids[0].spiffe_id, alg, aud, sub, verified, judged: judged.spiffe_id });
}

const commands = {
    bundles: (...headers) => stream(workload.FetchX509Bundles({}, metadata(...headers)), (answer) => say({
        bundles: Object.fromEntries(Object.entries(answer.bundles).map(([name, der]) => [name, sha(der)])), crl: answer.crl.map(sha) })),
    svid: () => stream(workload.FetchX509SVID({}, mark), showSvid),
    'svid-without': () => stream(workload.FetchX509SVID({}, new grpc.Metadata()), showSvid),
    // Whoever ends a stream by himself is told CANCELLED by his own library, and the connection goes on.
    cancel: async () => {
        await stream(workload.FetchX509SVID({}, mark), (answer, call) => call.cancel());
        await commands.health();
    },
    token,
    sign,
    'sign-short': async () => { await unary(signer, 'Sign', { algorithm: 'ALGORITHM_ECDSA', digest: Buffer.alloc(5) }); },
    health: async (service = '') => say(await unary(health, 'Check', { service })),
    // 100 calls at once on one connection.
    many: async () => {
        const codes = {};
        await Promise.all(Array.from({ length: 100 }, () => unary(signer, 'Chain', {}).then(() => 'OK', (error) => grpc.status[error.code])
            .then((code) => { codes[code] = (codes[code] || 0) + 1; })));
        say(codes);
    },
};
const run = commands[command];
if (!run) {
    console.error(`client.js: no command ${command}; expected one of ${Object.keys(commands).join(', ')}`);
    process.exit(2);
}
Promise.resolve(run(...args)).catch(ended).finally(() => [workload, signer, health].forEach((one) => one.close()));
