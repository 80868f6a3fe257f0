// One client's connection to Tidegate: its WebSocket, its cursor, and what came in.
//
// websocket-heartbeat-js sends the pings, notices when the pong stays away, and connects again. Left to
// itself it would always dial the URL it was made with, after a fixed pause; here every attempt carries the
// newest cursor and a new token, and waits a random time. docs/protocol.md has the rules (Cursor, Heartbeat, Close
// codes).
import { onScopeDispose, reactive } from 'vue'
// The package's ES module: of its CommonJS main file the default import would be {default: …}.
import WebsocketHeartbeat from 'websocket-heartbeat-js/lib/index.js'

const PATH = '/ws-notifications/'
const PING_EVERY_MS = 5_000
const PONG_WITHIN_MS = 10_000
const LONGEST_WAIT_MS = 30_000
const OVERLOADED = 1013
const OVERLOADED_WAIT_MS = 30_000 // and up to as long again
const ENTRIES_KEPT = 500

// After these, coming back would change nothing.
const isFinal = (code) => [1000, 1002, 1003, 1007, 1009].includes(code) || code >= 4500

// Random from the first attempt on: when a node stops, all its clients are here at the same moment.
const waitMs = (attempt, code) =>
  code === OVERLOADED
    ? OVERLOADED_WAIT_MS * (1 + Math.random())
    : Math.random() * Math.min(LONGEST_WAIT_MS, 1_000 * 2 ** attempt)

const encodeCursor = (positions) =>
  btoa(JSON.stringify(positions)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

class Socket extends WebsocketHeartbeat {
  pingAt = null // when the oldest unanswered ping went out

  // Asynchronous: the package's constructor calls it before it is told what to dial.
  async createWebSocket() {
    try {
      await null
      await this.prepare()
      if (this.forbidReconnect) return // closed while it waited, which does not stop the package
      super.createWebSocket()
    } catch {
      this.reconnect() // nothing to dial with, for now
      return
    }
    this.expectLife()
  }

  close() {
    this.ws ??= { close() {} } // none was opened yet
    super.close()
  }

  // Called when a connection opens and for every message. The package then starts its pause anew, so that on a busy
  // stream no ping would ever go out. Here any message is a sign of life, but only a ping ends the pause.
  heartCheck() {
    clearTimeout(this.pongTimeoutId)
    if (!this.pausing) this.heartStart()
  }

  heartStart() {
    if (this.forbidReconnect) return
    this.pausing = true
    this.pingTimeoutId = setTimeout(() => {
      this.pausing = false
      this.ping()
      this.expectLife()
    }, this.opts.pingTimeout)
  }

  heartReset() {
    super.heartReset()
    this.pausing = false
    this.pingAt = null
  }

  ping() {
    this.pingAt ??= performance.now()
    this.send(this.opts.pingMsg)
  }

  // Only closing it, as the package does, would not do: Chromium waits a minute for the answering close frame.
  expectLife() {
    this.pongTimeoutId = setTimeout(() => {
      const { ws } = this
      const lost = ws.onclose
      ws.onopen = ws.onmessage = ws.onerror = ws.onclose = null
      ws.close()
      lost({ code: 1006, reason: 'no pong' })
    }, this.opts.pongTimeout)
  }
}

// token: gives a token, or a promise of one, where the gateway wants one (auth.mode: jwt). It is asked before each attempt:
// after 4009 the last one is of no use, and a page is not told that a handshake was refused for it.
export function useTidegate({ token = null } = {}) {
  // status: idle | connecting | open | waiting (for the next attempt) | ended (for good)
  // delayMs: how long the last pong took; waitS: until the next attempt; end: the close code and its reason
  // entries: messages {stream, offset, time, data, missed} and gaps {stream, from, to, reason}, oldest first,
  // each with its type and an id of its own
  const state = reactive({ status: 'idle', delayMs: null, waitS: 0, end: null, connection: '', entries: [] })
  let socket = null
  let storageKey = ''
  let cursor = {} // {stream: [epoch, offset]}: everything up to there has been seen
  let missedUpTo = {} // {stream: [epoch, offset]}: up to there, messages come late
  let closedWith = null
  let added = 0

  function start(client, group) {
    stop()
    storageKey = `tidegate.cursor.${client}.${group}`
    cursor = JSON.parse(localStorage.getItem(storageKey) ?? '{}')
    const url = () => {
      const query = new URLSearchParams(token ? {} : { client })
      if (group) query.set('groups', group)
      if (Object.keys(cursor).length) query.set('cursor', encodeCursor(cursor))
      return `${location.origin.replace('http', 'ws')}${PATH}?${query}`
    }
    state.status = 'connecting'
    state.end = null
    closedWith = null
    const own = new Socket({
      pingTimeout: PING_EVERY_MS,
      pongTimeout: PONG_WITHIN_MS,
      pingMsg: 'ping',
    })
    // Comes before each attempt, and the package reads both options only after it.
    own.prepare = async () => {
      own.opts.protocols = token ? ['tidegate.v1', `bearer.${await token()}`] : ['tidegate.v1']
      own.opts.url = url()
    }
    own.onopen = () => {
      closedWith = null
      own.ping() // the delay is known at once, not after the first pause
    }
    own.onmessage = ({ data }) => (data === 'pong' ? measure(own) : take(JSON.parse(data)))
    own.onclose = ({ code, reason }) => {
      own.heartReset() // the package lets its timers go on into the next connection
      state.delayMs = null
      closedWith = code
      if (!isFinal(code)) return
      own.close() // no further attempt
      state.status = 'ended'
      state.end = { code, reason }
    }
    own.onreconnect = () => {
      const pause = waitMs(own.repeat, closedWith)
      own.opts.reconnectTimeout = pause // the package reads it after this
      state.status = 'waiting'
      state.waitS = Math.ceil(pause / 1_000)
    }
    socket = own
  }

  function stop() {
    if (!socket) return
    socket.onclose = socket.onmessage = () => {}
    socket.close()
    socket = null
    state.delayMs = null
    state.status = 'idle'
  }

  function measure(own) {
    if (own.pingAt === null) return // two pings were under way, and the first pong has told
    state.delayMs = Math.round(performance.now() - own.pingAt)
    own.pingAt = null
  }

  function take(event) {
    const { type, stream, epoch } = event
    if (type === 'welcome') welcome(event)
    else if (type === 'joined') cursor[stream] = [epoch, event.offset]
    else if (type === 'left') delete cursor[stream]
    else if (type === 'message') {
      cursor[stream] = [epoch, event.offset]
      const [missedIn, last] = missedUpTo[stream] ?? []
      add({ ...event, missed: epoch === missedIn && event.offset <= last })
    } else if (type === 'gap') {
      if (event.to !== null) cursor[stream] = [epoch, event.to]
      else if (cursor[stream]?.[0] !== epoch) cursor[stream] = [epoch, 0]
      add(event)
    }
    localStorage.setItem(storageKey, JSON.stringify(cursor))
  }

  function welcome({ connection, streams }) {
    state.status = 'open'
    state.connection = connection
    cursor = {}
    missedUpTo = {}
    for (const [stream, at] of Object.entries(streams)) {
      cursor[stream] = [at.epoch, at.offset]
      if (at.missed) missedUpTo[stream] = [at.epoch, at.top]
    }
  }

  function add(entry) {
    state.entries.push({ ...entry, id: ++added })
    if (state.entries.length > ENTRIES_KEPT) state.entries.shift()
  }

  onScopeDispose(stop)
  return { state, start, stop }
}
