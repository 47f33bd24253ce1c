import { createServer } from 'node:http';

createServer((request, response) => {
  const id = request.headers['x-user-id'] ?? ''; // what to store; empty for nobody
  const name = decodeURIComponent(request.headers['x-user-name'] ?? '');
  const balance = request.headers['x-user-balance'] ?? '';
  if (request.method === 'POST') { // a call that costs the user money
    response.setHeader('Tollgate-Balance', 'changed');
  }
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`${id} is ${name} and has ${balance}\n`);
}).listen(3000, '127.0.0.1');
