// What the edge knows of the node behind a session: nothing may be said in the service's name while it is silent.
// Source: docs/protocol.md, Heartbeat.

const ANSWER_MS = 5000; // for a pong: the edge itself may have stood still, and finds it out by asking

function open() {
    return {heard_ms: 0, asked_ms: 0};
}

// Something has come from it.
function hear(node, now_ms) {
    node.heard_ms = now_ms;
    node.asked_ms = 0;
}

function lives(node, now_ms, settings) {
    return now_ms - node.heard_ms <= settings.node_silence_s * 1000;
}

// Notes that it is asked for a sign of life, which it gives at once if it lives.
function ask(node, now_ms) {
    node.asked_ms = now_ms;
}

function isAsked(node) {
    return node.asked_ms > 0;
}

function isGivenUp(node, now_ms, settings) {
    return (
        node.asked_ms > 0 &&
        now_ms - node.asked_ms >= ANSWER_MS &&
        now_ms - node.heard_ms >= settings.node_timeout_s * 1000
    );
}

export default {open, hear, lives, ask, isAsked, isGivenUp};
