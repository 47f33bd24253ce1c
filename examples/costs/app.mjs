import { createServer } from 'node:http';

const pricePerWord = 200; // in millionths
const reply = 'Forty-two is the answer';
const cost = (millionths) => (millionths / 1e6).toFixed(6);

createServer((request, response) => {
  const words = reply.split(' ');
  if (request.url === '/answer') { // the cost is known before anything is sent: a header
    response.setHeader('Tollgate-Cost', cost(pricePerWord * words.length));
    response.end(`${reply}\n`);
    return;
  }
  // The cost is known at the end: a trailer, announced before the first byte.
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Trailer': 'Tollgate-Cost' });
  let spent = 0;
  for (const word of words) {
    spent += pricePerWord;
    response.write(`data: ${word}\n\n`);
  }
  response.addTrailers({ 'Tollgate-Cost': cost(spent) });
  response.end();
}).listen(3000, '127.0.0.1');
