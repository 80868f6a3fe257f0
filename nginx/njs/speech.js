// What the edge says itself, and when it may: to the client between two frames of the service, and not within a fragmented
// message; to the service between two frames of the client. All of a session's bytes pass here on their way out.
//
// What is sent outside of an event of nginx and does not fit into the socket waits for the next one (nginx asks to hear of
// room only then): a ping to the service after it brings one. Its pong is kept from the client.

import frames from 'frames.js';
import node from 'node.js';

const SIGN_MS = 10000; // docs/protocol.md, Heartbeat: at most one sign of life in 10 s
const PROOF_BYTES = 16384; // to the client since the last ping, after which an answer is followed by one
const PONG = 0x80 | frames.PONG;

// To the service

function to_service(session, bytes, last) {
    if (bytes.length > 0 || last) {
        session.passed_ms = session.io.now();
        session.io.to_service(bytes, last);
    }
}

// The service hears nothing of what is answered here, and must not take the client for dead. What passes is a sign
// of its own. Source: docs/protocol.md, Heartbeat.
function sign_of_life(session) {
    if (session.io.now() - session.passed_ms >= SIGN_MS) {
        to_service(session, frames.control(frames.PONG), false);
    }
}

// Asks a node for a sign of life from which nothing came for too long.
function ask_node(session) {
    const now_ms = session.io.now();
    if (!node.isAsked(session.node) && !node.lives(session.node, now_ms, session.settings) && may_ask(session)) {
        node.ask(session.node, now_ms);
        ping(session);
    }
}

function may_ask(session) {
    return session.left === 0 && !session.deaf;
}

function ping(session) {
    session.pings++;
    to_service(session, frames.control(frames.PING), false);
}

// To the client

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
    const waiting = session.waiting;
    if (waiting.length === 0 || !may_speak(session)) {
        return;
    }
    for (let i = 0; i < waiting.length && !session.down.closed; i++) {
        to_client(session, waiting[i], false);
        session.spoken = true;
    }
    waiting.length = 0;
    prove(session);
}

function prove(session) {
    if (session.spoken && session.unproven >= PROOF_BYTES && may_ask(session)) {
        session.spoken = false;
        session.unproven = 0;
        ping(session);
    }
}

export default {to_client, to_service, sign_of_life, ask_node, own_pong, may_speak, say, speak, prove};
