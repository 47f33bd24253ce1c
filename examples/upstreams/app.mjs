import { createServer } from 'node:http';

createServer((request, response) => {
  const id = request.headers['x-user-id'] ?? ''; // what to store; empty for nobody
  let name;
  try {
    name = decodeURIComponent(request.headers['x-user-name'] ?? '');
  } catch { // uncaught, this would end the process
    response.writeHead(400).end('not from the gateway\n');
    return;
  }
  const balance = request.headers['x-user-balance'] ?? '';
  if (request.method === 'POST') { // a call that costs the user money
    response.setHeader('Tollgate-Balance', 'changed');
  }
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`${id} is ${name} and has ${balance}\n`);
}).listen(3000, '127.0.0.1');
