// What a session costs the worker: the engine gives memory back only when a session ends, and what it takes goes by frames
// and calls more than by bytes. The figures are measured: docs/decisions/0030-njs-engine.md, tests/edges/test_njs_edge.py.

const EVENT_BYTES = 1024; // of what nginx reads at once, beside the bytes
const FRAME_BYTES = 64; // of a client's frame that passes
const HEARTBEAT_BYTES = 256; // of one that is answered, or of a call that is refused
const ALARM_BYTES = 512; // of a timer
const LOOK_BYTES = 1024; // of a text frame that is looked at, beside its bytes
const LOOK_COPIES = 3;
const CALL_BYTES = 45056; // of a small call; session_calls of them are a share
const CALL_COPIES = 6; // of its data, and of its answer
const ENOUGH = 4; // shares after which no more calls are taken
const TOO_MUCH = 32; // shares after which no more answers are waited for

function open() {
    return {bytes: 0, call_bytes: 0};
}

function event(budget, bytes) {
    budget.bytes += EVENT_BYTES + bytes;
}

function frame(budget) {
    budget.bytes += FRAME_BYTES;
}

function heartbeat(budget) {
    budget.bytes += HEARTBEAT_BYTES;
}

function alarm(budget) {
    budget.bytes += ALARM_BYTES;
}

// Bytes put together anew.
function copy(budget, bytes) {
    budget.bytes += bytes;
}

function look(budget, bytes) {
    budget.bytes += LOOK_BYTES + LOOK_COPIES * bytes;
}

function call(budget) {
    budget.call_bytes += CALL_BYTES;
}

// Of a call's data, or its answer.
function carried(budget, bytes) {
    budget.call_bytes += CALL_COPIES * bytes;
}

// 1 is all that the session may cost.
function share(budget, settings) {
    const calls = settings.session_calls * CALL_BYTES;
    return settings.session_bytes > 0 && calls > 0
        ? Math.max(budget.bytes / settings.session_bytes, budget.call_bytes / calls) : Infinity;
}

function isSpent(budget, settings) {
    return share(budget, settings) >= 1;
}

function isOverspent(budget, settings) {
    return share(budget, settings) >= ENOUGH;
}

function isRuinous(budget, settings) {
    return share(budget, settings) >= TOO_MUCH;
}

export default {open, event, frame, heartbeat, alarm, copy, look, call, carried, isSpent, isOverspent, isRuinous};
