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

// In how many ms a node that stays silent is to be asked, or given up.
function look_in_ms(node, now_ms, settings) {
    const given_up_ms = node.heard_ms + settings.node_timeout_s * 1000;
    const due_ms = isAsked(node)
        ? Math.max(node.asked_ms + ANSWER_MS, given_up_ms)
        : Math.max(node.heard_ms + settings.node_silence_s * 1000 + 1, given_up_ms - ANSWER_MS);
    return Math.max(due_ms - now_ms, 0);
}

function isGivenUp(node, now_ms, settings) {
    return (
        node.asked_ms > 0 &&
        now_ms - node.asked_ms >= ANSWER_MS &&
        now_ms - node.heard_ms >= settings.node_timeout_s * 1000
    );
}

export default {open, hear, lives, ask, isAsked, look_in_ms, isGivenUp};
