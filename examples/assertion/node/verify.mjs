// Says who is there, and believes nothing but tollgate's signed assertion.
import { createPublicKey, verify as verifySignature } from 'node:crypto';
import { createServer } from 'node:http';

const skew = 5; // seconds that two clocks may differ
const maxLifetime = 300; // seconds; the gateway's own limit
const maxAssertion = 8 << 10;
const maxKeys = 64 << 10;
const fetchTimeout = 3_000;
const retryAfter = 5_000; // ms between two readings of the keys
const refreshAfter = 300_000; // keys that are older are read again,
const maxAge = 900_000; // and after this not believed any more

const [issuer, audience, jwksURL, listen] = ['ISSUER', 'AUDIENCE', 'JWKS_URL', 'LISTEN'].map((name) => {
  if (!process.env[name]) throw new Error(`${name} is not set`);
  return process.env[name];
});

class NoKeys extends Error {}

function demand(holds) {
  if (!holds) throw new Error('refused');
}

function decode(part) {
  const bytes = Buffer.from(part, 'base64url');
  demand(bytes.toString('base64url') === part); // there is one way to write it
  return bytes;
}

// parse reads JSON in which no member is there twice: JSON.parse keeps the last one. Each
// member has one colon outside of strings. JSON.parse goes first: in its language the
// search for strings takes linear time, in any other text it may take quadratic time.
function parse(bytes) {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  let members = -1; // the last call is for the whole
  const value = JSON.parse(text, function count(name, member) {
    if (!Array.isArray(this)) members++;
    return member;
  });
  const colons = text.replace(/"(?:[^"\\]|\\.)*"/g, '').split(':').length - 1;
  demand(members === colons);
  return value;
}

async function verify(text) {
  const parts = text.split('.');
  demand(text.length <= maxAssertion && parts.length === 3);
  const [rawHeader, rawClaims, signature] = parts.map(decode);
  const header = parse(rawHeader);
  demand(Object.keys(header).sort().join() === 'alg,kid,typ'); // no crit, jwk, jku, x5u, x5c, …
  demand(header.alg === 'EdDSA' && header.typ === 'tollgate+jwt' && typeof header.kid === 'string');
  const key = await keyOf(header.kid);
  demand(key && verifySignature(null, Buffer.from(`${parts[0]}.${parts[1]}`), key, signature));
  const claims = parse(rawClaims);
  const { iss, aud, sub, iat, exp } = claims;
  const now = Math.floor(Date.now() / 1000);
  demand(iss === issuer && aud === audience && typeof sub === 'string' && sub !== '');
  demand(Number.isSafeInteger(iat) && iat <= now + skew);
  demand(Number.isSafeInteger(exp) && exp > now - skew && exp <= iat + maxLifetime);
  return claims;
}

// The gateway's keys, from the configured URL and nowhere else.
let keys = new Map();
let read = -Infinity;
let asked = -Infinity;
let reading;

// keyOf returns the key with this id, or undefined if the gateway does not know it either.
// Only a request without a usable key waits for the gateway, which may hang.
async function keyOf(id) {
  const now = performance.now();
  const usable = keys.has(id) && now - read <= maxAge;
  if ((!usable || now - read > refreshAfter) && now - asked > retryAfter) reading ??= readKeys();
  if (!usable) await reading;
  if (performance.now() - read > maxAge) throw new NoKeys("the gateway's keys cannot be read");
  return keys.get(id);
}

async function readKeys() {
  try {
    const response = await fetch(jwksURL, { redirect: 'error', signal: AbortSignal.timeout(fetchTimeout) });
    if (response.status !== 200) throw new Error(`status ${response.status}`);
    const chunks = [];
    let size = 0;
    for await (const chunk of response.body) {
      size += chunk.length;
      if (size > maxKeys) throw new Error('too much');
      chunks.push(chunk);
    }
    const found = new Map();
    for (const { kty, crv, x, kid } of parse(Buffer.concat(chunks)).keys) {
      if (kty === 'OKP' && crv === 'Ed25519') found.set(kid, createPublicKey({ key: { kty, crv, x }, format: 'jwk' }));
    }
    keys = found;
    read = performance.now();
  } catch (error) {
    console.error("reading the gateway's keys:", error.message);
  } finally {
    asked = performance.now();
    reading = undefined;
  }
}

const server = createServer(async (request, response) => {
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  try {
    const { sub, name = '' } = await verify(request.headers['x-tollgate-assertion'] ?? '');
    response.end(`${sub} is ${name}\n`);
  } catch (error) {
    const noKeys = error instanceof NoKeys;
    response.statusCode = noKeys ? 503 : 401;
    response.end(noKeys ? `${error.message}\n` : 'not from the gateway\n');
  }
});
const [host, port] = listen.split(':');
server.listen(Number(port), host);
