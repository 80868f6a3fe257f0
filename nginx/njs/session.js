// One session: what passes between a client and the service, and what the edge answers itself.
//
// Bytes pass untouched, but for the few frames of a client that the edge answers: text heartbeats, and calls as
// `command.js` knows them. A session goes through three states:
//
//   handshake -> reading     with a 101 answer of the service that says who the client is; nothing else says it
//   handshake -> relaying    with any other answer
//   reading   -> relaying    when the session has cost its share of memory (settings: session_bytes, session_calls)
//
// Relaying is nginx's own, without any code, and the service answers everything. The engine gives memory back only
// when a session ends, and nothing slows a fast sender down while the code stands between; so reading has a limit.
//
// To the client, the edge speaks between two frames of the service only, and not within a fragmented message. To the
// service it speaks between two frames of the client: signs of life, and pings of its own, whose pongs it keeps. What is
// sent outside of an event of nginx and does not fit into the socket waits for the next one (nginx asks to hear of
// room only then): a ping after it brings one. `io` is the world:
//
//   to_client(bytes, last), to_service(bytes, last)   send; `last`: the other side has ended
//   call(call, who, settings, done)                   make the request; done(frame, code). Gives a function that ends it early
//   relay()                                           let everything pass from now on
//   now()                                             ms
//   count(name)                                       one more of it, for the metrics

import calls from 'calls.js';
import command from 'command.js';
import frames from 'frames.js';

const HEAD_BYTES = 16384;
const HEAD_END = Buffer.from('\r\n\r\n');
const EVENT_BYTES = 1024; // what reading costs beside the bytes read: measured in docs/decisions/0030-njs-engine.md
const CALL_BYTES = 256; // of a call, beside its data: type, id, method
const ENOUGH = 4; // shares after which no more calls are taken
const TOO_MUCH = 32; // shares of session_bytes after which no more answers are waited for
const SIGN_MS = 10000; // docs/protocol.md, Heartbeat: at most one sign of life in 10 s
const SWITCHED = /^HTTP\/1\.1 101 /;
const CLIENT = /\r\nTidegate-Client: ([A-Za-z0-9_.@-]+)(\r|$)/i;
const CONNECTION = /\r\nTidegate-Connection: ([A-Za-z0-9_.@-]+)(\r|$)/i;
const HEARTBEATS = {ping: frames.text([Buffer.from('pong')]), Ping: frames.text([Buffer.from('Pong')]), pong: null, Pong: null};
const CALL = '"call"';
const PROOF_BYTES = 16384; // to the client since the last ping, after which an answer is followed by one
const PONG = 0x80 | frames.PONG;
const EMPTY = Buffer.alloc(0);

function open(settings, io) {
    return {
        settings: settings,
        io: io,
        state: 'handshake',
        head: EMPTY, // of the answer, as far as it has come
        tail: EMPTY, // the last bytes of the request
        client: '',
        connection: '',
        cost: 0,
        calls: 0, // made
        in_flight: 0,
        give_up: {}, // of each call in flight, by its number: answers it at once
        waiting: [], // frames for the client that wait for a gap between the service's
        down: frames.tracker(), // service to client
        kept: EMPTY, // a byte that may begin the pong to a ping of ours
        pings: 0, // of ours, without their pongs yet
        unproven: 0, // bytes to the client since the last of them
        spoken: false, // there were answers among them
        takes: true, // calls and heartbeats
        deaf: false, // the client's frames are the service's affair alone
        fragmented: false, // a message of the client's has begun
        left: 0, // bytes of a client's frame that pass as they come
        held: EMPTY, // a head that is incomplete
        frame: null, // a frame that may be ours: as much as has come of it
        filled: 0,
        passed_ms: 0, // when something last went to the service
    };
}

// Client to service

function from_client(session, bytes, last) {
    spend(session, bytes.length);
    if (session.state === 'handshake') {
        remember_tail(session, bytes);
        to_service(session, bytes, last);
        return;
    }
    const rest = session.deaf ? bytes : read(session, bytes);
    if (last) {
        hold_nothing(session);
    }
    to_service(session, rest, last);
    if (session.held.length > 0 || session.frame !== null) {
        sign_of_life(session);
    }
    prove(session);
    settle(session);
}

// Takes the frames that are ours; gives the bytes at the end that are not. What comes before those is sent.
function read(session, bytes) {
    let from = 0;
    let at = 0;
    if (session.held.length > 0) {
        bytes = Buffer.concat([session.held, bytes]);
        session.held = EMPTY;
    }
    while (at < bytes.length && !session.deaf) {
        if (session.left > 0) {
            at += skip(session, bytes.length - at);
        } else if (session.frame !== null) {
            at = from = fill(session, bytes, at);
        } else {
            const head = frames.head(bytes, at);
            if (head === null) {
                to_service(session, bytes.subarray(from, at), false);
                session.held = Buffer.from(bytes.subarray(at));
                return EMPTY;
            }
            if (is_candidate(session, head)) {
                to_service(session, bytes.subarray(from, at), false);
                at = from = begin(session, bytes, at, head);
            } else {
                note(session, head);
            }
        }
    }
    return bytes.subarray(from);
}

// A frame that passes as it is.
function note(session, head) {
    if (!frames.isLegal(head, session.fragmented) || head.length > session.settings.message_bytes) {
        session.deaf = true; // the service will end it
        return;
    }
    if (head.opcode === frames.CLOSE) {
        session.deaf = true;
        session.down.closed = true; // nobody waits for answers any more
    } else if (head.opcode < frames.CLOSE) {
        session.fragmented = !head.fin;
    }
    session.left = head.size + head.length;
}

function skip(session, available) {
    const here = Math.min(session.left, available);
    session.left -= here;
    return here;
}

function is_candidate(session, head) {
    return (
        session.takes &&
        head.opcode === frames.TEXT &&
        head.fin &&
        frames.isLegal(head, session.fragmented) &&
        head.length <= Math.min(session.settings.data_bytes + CALL_BYTES, session.settings.message_bytes)
    );
}

// Takes the frame at `at`, or begins to collect it; gives where its bytes end here.
function begin(session, bytes, at, head) {
    const size = head.size + head.length;
    if (bytes.length - at >= size) {
        take(session, bytes.subarray(at, at + size));
        return at + size;
    }
    session.frame = Buffer.alloc(size);
    session.filled = 0;
    return fill(session, bytes, at);
}

function fill(session, bytes, at) {
    const end = Math.min(bytes.length, at + session.frame.length - session.filled);
    bytes.copy(session.frame, session.filled, at, end);
    session.filled += end - at;
    if (session.filled === session.frame.length) {
        const frame = session.frame;
        session.frame = null;
        take(session, frame);
    }
    return end;
}

// Gives up what is held: it goes on as it came.
function hold_nothing(session) {
    if (session.held.length > 0) {
        const held = session.held;
        session.held = EMPTY;
        to_service(session, held, false);
    }
    if (session.frame !== null) {
        const frame = session.frame.subarray(0, session.filled);
        session.left = session.frame.length - session.filled;
        session.frame = null;
        to_service(session, frame, false);
    }
}

// A whole text frame: answered here, or sent on.
function take(session, frame) {
    const payload = frames.payload(frame, frames.head(frame, 0));
    if (payload.length === 4) {
        const answer = HEARTBEATS[payload.toString()];
        if (answer !== undefined) {
            session.io.count('heartbeats');
            sign_of_life(session);
            if (answer !== null) {
                say(session, answer);
            }
            return;
        }
    } else if (payload.length > 4 && payload.includes(CALL)) {
        const call = command.parse(payload, session.settings);
        if (call !== null) {
            sign_of_life(session);
            carry_out(session, call);
            return;
        }
    }
    to_service(session, frame, false);
}

function carry_out(session, call) {
    const settings = session.settings;
    if (session.in_flight >= settings.calls_in_flight) {
        const refusal = calls.error(call.id, 'too_many_calls', `${session.in_flight} calls are in flight`);
        session.io.count(refusal.code);
        say(session, refusal.frame);
        return;
    }
    session.calls++;
    session.in_flight++;
    const who = {
        client: session.client,
        connection: session.connection,
        request_id: `${session.connection}-e${session.calls}`,
    };
    const number = session.calls;
    session.give_up[number] = session.io.call(call, who, settings, (frame, code) => {
        session.io.count(code);
        session.in_flight--;
        delete session.give_up[number];
        spend(session, frame.length);
        say(session, frame);
        settle(session);
    });
}

// The service hears nothing of what is answered here, and must not take the client for dead. What passes is a sign
// of its own. Source: docs/protocol.md, Heartbeat.
function sign_of_life(session) {
    if (session.io.now() - session.passed_ms >= SIGN_MS) {
        to_service(session, frames.control(frames.PONG), false);
    }
}

function to_service(session, bytes, last) {
    if (bytes.length > 0 || last) {
        session.passed_ms = session.io.now();
        session.io.to_service(bytes, last);
    }
}

// Service to client

function from_service(session, bytes, last) {
    spend(session, bytes.length);
    if (session.state === 'handshake') {
        to_client(session, bytes, last);
        read_answer(session, bytes);
        settle(session);
        return;
    }
    if (session.kept.length > 0) {
        bytes = Buffer.concat([session.kept, bytes]);
        session.kept = EMPTY;
    }
    let from = 0;
    let at = 0;
    while (at < bytes.length) {
        if (session.waiting.length > 0 && may_speak(session)) {
            to_client(session, bytes.subarray(from, at), false);
            from = at;
            speak(session);
        }
        const ours = last ? 0 : own_pong(session, bytes, at);
        if (ours === 0) {
            at = frames.pass(session.down, bytes, at);
        } else {
            to_client(session, bytes.subarray(from, at), false);
            at = from = at + ours;
        }
    }
    to_client(session, from > 0 ? bytes.subarray(from) : bytes, last);
    speak(session);
    settle(session);
}

// How many bytes of the pong to a ping of ours are at `at`. The pong to an empty ping of the client's looks the same, and
// either may stand for the other.
function own_pong(session, bytes, at) {
    if (session.pings === 0 || bytes[at] !== PONG || !frames.isBetween(session.down)) {
        return 0;
    }
    if (at + 1 === bytes.length) {
        session.kept = Buffer.from([PONG]);
        return 1;
    }
    if (bytes[at + 1] !== 0) {
        return 0;
    }
    session.pings--;
    return 2;
}

function to_client(session, bytes, last) {
    if (bytes.length > 0 || last) {
        session.unproven += bytes.length;
        session.io.to_client(bytes, last);
    }
}

function may_speak(session) {
    return frames.isBetween(session.down) && !session.down.fragmented;
}

function say(session, frame) {
    session.waiting.push(frame);
    speak(session);
}

// Sends what waits, if this is a gap; forgets it after a close frame.
function speak(session) {
    if (session.waiting.length === 0 || !may_speak(session)) {
        return;
    }
    const waiting = session.waiting;
    session.waiting = [];
    for (let i = 0; i < waiting.length && !session.down.closed; i++) {
        to_client(session, waiting[i], false);
        session.spoken = true;
    }
    prove(session);
}

function prove(session) {
    if (session.spoken && session.unproven >= PROOF_BYTES && session.left === 0 && !session.deaf) {
        session.spoken = false;
        session.unproven = 0;
        session.pings++;
        to_service(session, frames.control(frames.PING), false);
    }
}

// The handshake

function remember_tail(session, bytes) {
    const both = Buffer.concat([session.tail, bytes.subarray(Math.max(0, bytes.length - 4))]);
    session.tail = both.subarray(Math.max(0, both.length - 4));
}

// Frames follow a 101 that names client and connection, if the client has sent nothing beyond its request: a client
// that does not wait for the answer is none of ours.
function read_answer(session, bytes) {
    const before = session.head.length;
    session.head = before > 0 ? Buffer.concat([session.head, bytes]) : bytes;
    const end = session.head.indexOf(HEAD_END);
    if (end < 0 && session.head.length <= HEAD_BYTES) {
        return;
    }
    const head = session.head.subarray(0, Math.max(end, 0)).toString();
    session.head = EMPTY;
    const client = CLIENT.exec(head);
    const connection = CONNECTION.exec(head);
    if (!SWITCHED.test(head) || client === null || connection === null || !session.tail.equals(HEAD_END)) {
        relay(session);
        return;
    }
    session.client = client[1];
    session.connection = connection[1];
    session.state = 'reading';
    session.passed_ms = session.io.now();
    session.io.count('sessions');
    let at = end + HEAD_END.length - before;
    while (at < bytes.length) {
        at = frames.pass(session.down, bytes, at);
    }
}

// The budget

function spend(session, bytes) {
    session.cost += EVENT_BYTES + bytes;
}

// Ends reading when its share is used up and nothing is under way. While calls are, more of them are taken, or they
// would be counted here and by the service, each on its own; but not at any price.
function settle(session) {
    const settings = session.settings;
    const share = Math.max(session.cost / settings.session_bytes, session.calls / settings.session_calls);
    if (session.state !== 'reading' || share < 1) {
        return;
    }
    if (session.in_flight === 0 && session.waiting.length === 0 && session.pings === 0) {
        hold_nothing(session);
        session.io.count('relayed');
        relay(session);
    } else if (share >= ENOUGH) {
        hold_nothing(session);
        session.takes = false;
    }
    if (session.cost >= TOO_MUCH * settings.session_bytes) {
        Object.keys(session.give_up).forEach((number) => session.give_up[number]());
    }
}

function relay(session) {
    session.state = 'relaying';
    session.io.relay();
}

export default {open, from_client, from_service};
