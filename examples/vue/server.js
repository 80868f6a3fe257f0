// The application: it has the orders, and pushes each change to the group `orders`, when it is made. Node.js alone.

import { createServer } from 'node:http'

const PORT = process.env.PORT ?? 3000
const GATEWAY = process.env.TIDEGATE_API ?? 'http://127.0.0.1:8001'
const STATES = ['new', 'packed', 'shipped', 'delivered']

const orders = new Map([1017, 1018, 1019].map((id) => [id, { id, state: 'new' }]))

/** Where the group's stream is now; null where nobody can tell. */
async function position() {
  const answer = await fetch(`${GATEWAY}/api/groups/orders/history?limit=0`).catch(() => null)
  if (!answer?.ok) return null
  const { epoch, offset } = await answer.json()
  return { epoch, offset }
}

/** The position first, then the data: so the data has everything up to there, and what follows comes as messages. */
async function list() {
  const before = await position()
  return { position: before, orders: [...orders.values()] }
}

/** The change first, then the push, with the new value: who gets it twice has what is so. */
async function advance(id) {
  const { state } = orders.get(id)
  const order = { id, state: STATES[(STATES.indexOf(state) + 1) % STATES.length] }
  orders.set(id, order)
  await fetch(`${GATEWAY}/api/groups/orders/push`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': crypto.randomUUID() },
    body: JSON.stringify({ data: order }),
  })
  return order
}

const server = createServer(async (request, response) => {
  const id = Number(/^\/orders\/(\d+)\/next$/.exec(request.url)?.[1])
  let answer = null
  try {
    if (request.method === 'GET' && request.url === '/orders') answer = await list()
    else if (request.method === 'POST' && orders.has(id)) answer = await advance(id)
  } catch (error) {
    console.error(`${request.method} ${request.url}: ${error.message}`)
    response.writeHead(503).end()
    return
  }
  response.writeHead(answer ? 200 : 404, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer))
})
server.listen(PORT, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`))
