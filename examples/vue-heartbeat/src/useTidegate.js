// One client's connection to Tidegate: its WebSocket, its cursor, and what came in.
//
// websocket-heartbeat-js sends the pings, notices when the pong stays away, and connects again. Left to
// itself it would always dial the URL it was made with, after a fixed pause; here every attempt carries the
// newest cursor and waits a random time. docs/protocol.md has the rules (Cursor, Heartbeat, Close codes).
import { onScopeDispose, reactive } from 'vue'
// The package's ES module: of its CommonJS main file the default import would be {default: …}.
import WebsocketHeartbeat from 'websocket-heartbeat-js/lib/index.js'

const PATH = '/ws-notifications/'
const PING_EVERY_MS = 5_000
const PONG_WITHIN_MS = 10_000
const LONGEST_WAIT_MS = 30_000
const OVERLOADED = 1013
const ENTRIES_KEPT = 500

// After these, coming back would change nothing.
const isFinal = (code) => [1000, 1002, 1003, 1007, 1009].includes(code) || code >= 4500

// Random from the first attempt on: when a node stops, all its clients are here at the same moment.
const waitMs = (attempt) => Math.random() * Math.min(LONGEST_WAIT_MS, 1_000 * 2 ** attempt)

const encodeCursor = (positions) =>
  btoa(JSON.stringify(positions)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

class Socket extends WebsocketHeartbeat {
  pingAt = null // when the oldest unanswered ping went out

  createWebSocket() {
    if (this.forbidReconnect) return // closed while it waited, which does not stop the package
    super.createWebSocket()
    this.expectLife()
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

export function useTidegate() {
  // status: idle | connecting | open | waiting (for the next attempt) | ended (for good)
  // delayMs: how long the last pong took; waitS: until the next attempt; end: the close code and its reason
  // entries: messages {stream, offset, time, data, missed} and gaps {stream, from, to, reason}, oldest first,
  // each with its type and an id of its own
  const state = reactive({ status: 'idle', delayMs: null, waitS: 0, end: null, connection: '', entries: [] })
  let socket = null
  let storageKey = ''
  let cursor = {} // {stream: [epoch, offset]}: everything up to there has been seen
  let missedUpTo = {} // {stream: offset}: up to there, messages come late
  let closedWith = null
  let added = 0

  function start(client, group) {
    stop()
    storageKey = `tidegate.cursor.${client}.${group}`
    cursor = JSON.parse(localStorage.getItem(storageKey) ?? '{}')
    const url = () => {
      const query = new URLSearchParams({ client })
      if (group) query.set('groups', group)
      if (Object.keys(cursor).length) query.set('cursor', encodeCursor(cursor))
      return `${location.origin.replace('http', 'ws')}${PATH}?${query}`
    }
    state.status = 'connecting'
    state.end = null
    const own = new Socket({
      url: url(),
      protocols: ['tidegate.v1'],
      pingTimeout: PING_EVERY_MS,
      pongTimeout: PONG_WITHIN_MS,
      pingMsg: 'ping',
    })
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
    // Comes before each attempt, and the package reads both options only after it.
    own.onreconnect = () => {
      const pause = waitMs(own.repeat) + (closedWith === OVERLOADED ? 10_000 : 0)
      own.opts.reconnectTimeout = pause
      own.opts.url = url()
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
      add({ ...event, missed: event.offset <= missedUpTo[stream] })
    } else if (type === 'gap') {
      if (event.to !== null) cursor[stream] = [epoch, event.to]
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
      if (at.missed) missedUpTo[stream] = at.top
    }
  }

  function add(entry) {
    state.entries.push({ ...entry, id: ++added })
    if (state.entries.length > ENTRIES_KEPT) state.entries.shift()
  }

  onScopeDispose(stop)
  return { state, start, stop }
}
