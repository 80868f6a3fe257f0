// One session: what passes between a client and the service, and what the edge answers itself.
//
// Bytes pass untouched, but for the few frames of a client that the edge answers: text heartbeats, and calls as
// `command.js` knows them. A session goes through these states:
//
//   handshake -> reading     with a 101 answer of the service that says who the client is; nothing else says it
//   handshake -> relaying    with any other answer
//   reading   -> relaying    when the session has cost its share of memory (budget.js)
//   reading   -> ended       when the node is given up (node.js), or is in the way of what waits to be said
//
// Relaying is nginx's own, without any code, and the service answers everything. The engine gives memory back only
// when a session ends, and nothing slows a fast sender down while the code stands between; so reading has a limit.
//
// What the edge says itself it says between the frames of others (speech.js). `io` is the world:
//
//   to_client(bytes, last), to_service(bytes, last)   send; `last`: the other side has ended
//   call(call, who, settings, done)                   make the request; done(frame, code), without a frame if nothing was
//                                                     asked. Gives a function that ends it early
//   relay()                                           let everything pass from now on
//   end(why)                                          end the session, at once if this is an event of either side
//   wake(wait_ms)                                     call `on_alarm` then; what was asked before is forgotten, and all is with
//                                                     relay() and the session's end
//   now()                                             ms
//   count(name)                                       one more of it, for the metrics

import budget from 'budget.js';
import calls from 'calls.js';
import command from 'command.js';
import frames from 'frames.js';
import handshake from 'handshake.js';
import node from 'node.js';
import speech from 'speech.js';

const MARGIN_BYTES = 256; // of a call, beside its data: type, id, method
const RESTART = 1012;
const EMPTY = Buffer.alloc(0);

const CALL = Buffer.from('"call"');
const ESCAPED = Buffer.from('\\u006'); // of its letters those that an escape can hide
// `text` as a number, and the frame that answers, if there is one.
const HEARTBEATS = [['ping', 'pong'], ['Ping', 'Pong'], ['pong', ''], ['Pong', '']].map((it) => ({
    text: Buffer.from(it[0]).readUInt32BE(0),
    answer: it[1] === '' ? null : frames.text([Buffer.from(it[1])]),
}));

// What becomes of a client's frame that is no heartbeat and no call of ours.
const PASSES = {};
const WAITS = {}; // for a call to end
const COLLECTED = {}; // until all of it is there

function open(settings, io) {
    return {
        settings: settings,
        io: io,
        state: 'handshake',
        handshake: handshake.begin(),
        client: '',
        connection: '',
        budget: budget.open(),
        node: node.open(),
        calls: 0, // made
        in_flight: 0,
        elsewhere: 0, // what the service was left while some are in flight, and may be calls
        give_up: {}, // of each call in flight, by its number: answers it at once
        unmade: [], // frames of calls that could not be made and wait for a gap between the client's
        waiting: [], // frames for the client that wait for a gap between the service's
        down: frames.tracker(), // service to client
        kept: EMPTY, // a byte that may begin the pong to a ping of ours
        pings: 0, // of ours, without their pongs yet
        unproven: 0, // bytes to the client since the last of them
        spoken: false, // there were answers among them
        takes: true, // heartbeats, and calls
        leaves: false, // calls to the service
        deaf: false, // the client's frames are the service's affair alone
        fragmented: false, // a message of the client's has begun
        head: frames.blank(), // of the client's latest frame
        left: 0, // bytes of a client's frame that pass as they come
        held: EMPTY, // a head that is incomplete, or a frame that waits and what follows it
        frame: null, // a frame that may be ours: as much as has come of it
        filled: 0,
        passed_ms: 0, // when something last went to the service
    };
}

// Client to service

function from_client(session, bytes, last) {
    budget.event(session.budget, bytes.length);
    if (session.state === 'handshake') {
        handshake.asked(session.handshake, bytes);
        speech.to_service(session, bytes, last);
        return;
    }
    if (session.state === 'ended' || node.isGivenUp(session.node, session.io.now(), session.settings)) {
        end(session, 'the node is silent');
        return;
    }
    go_on(session, bytes, last);
}

function go_on(session, bytes, last) {
    const rest = session.deaf ? bytes : read(session, bytes);
    if (last) {
        hold_nothing(session);
    }
    speech.to_service(session, rest, last);
    pass_unmade(session);
    if (session.held.length > 0 || session.frame !== null) {
        speech.sign_of_life(session);
    }
    speech.ask_node(session);
    speech.prove(session);
    settle(session);
}

// Takes the frames that are ours; gives the bytes at the end that are not. What comes before those is sent.
function read(session, bytes) {
    let from = 0;
    let at = 0;
    if (session.held.length > 0) {
        bytes = Buffer.concat([session.held, bytes]);
        budget.copy(session.budget, bytes.length);
        session.held = EMPTY;
    }
    while (at < bytes.length && !session.deaf) {
        if (session.left > 0) {
            const here = Math.min(session.left, bytes.length - at);
            session.left -= here;
            at += here;
        } else if (session.frame !== null) {
            at = from = fill(session, bytes, at);
            if (session.filled === session.frame.length && !take(session)) {
                hold(session, bytes.subarray(at));
                return EMPTY;
            }
        } else {
            const what = frames.read_head(session.head, bytes, at) ? judge(session, bytes, at) : WAITS;
            if (what === PASSES) {
                note(session);
                continue;
            }
            if (at > from) {
                speech.to_service(session, bytes.subarray(from, at), false);
                from = at;
            }
            if (what === WAITS) {
                hold(session, bytes.subarray(at));
                return EMPTY;
            }
            if (what === COLLECTED) {
                collect(session);
            } else {
                answer(session, what, bytes, at);
                at = from = at + session.head.size + session.head.length;
            }
        }
    }
    return bytes.subarray(from);
}

// What becomes of the frame at `at`, whose head has been read: one of the above, a heartbeat, or a call.
function judge(session, bytes, at) {
    const settings = session.settings;
    const head = session.head;
    budget.frame(session.budget);
    if (head.opcode !== frames.TEXT || head.length < 4 || isBroken(session)) {
        return PASSES;
    }
    const takes = session.takes && node.lives(session.node, session.io.now(), settings);
    const makes = takes && !session.leaves;
    const whole = bytes.length - at >= head.size + head.length;
    let call = command.PERHAPS;
    if (head.fin && head.length === 4) {
        if (!takes || budget.isSpent(session.budget, settings)) {
            return PASSES;
        }
        return whole ? heartbeat(frames.four_bytes(bytes, at, head)) : COLLECTED;
    }
    if (head.fin && head.length <= settings.data_bytes + MARGIN_BYTES && (makes || session.in_flight > 0)) {
        if (!whole) {
            return COLLECTED;
        }
        call = look(session, bytes, at);
        if (call === null || (makes && call !== command.PERHAPS)) {
            return call || PASSES;
        }
    }
    return leave(session);
}

function heartbeat(text) {
    for (let i = 0; i < HEARTBEATS.length; i++) {
        if (HEARTBEATS[i].text === text) {
            return HEARTBEATS[i];
        }
    }
    return PASSES;
}

// A call, or what may be one, is the service's, and from now on all are: each counts those in flight on its own. So that
// there are never more of them than one alone would allow, some wait until ours are answered.
function leave(session) {
    if (session.in_flight > 0) {
        if (session.in_flight + session.elsewhere >= session.settings.calls_in_flight) {
            return WAITS;
        }
        session.elsewhere++;
    }
    session.leaves = true;
    return PASSES;
}

// What `command.parse` says of the text frame at `at`.
function look(session, bytes, at) {
    const payload = frames.payload(bytes, at, session.head);
    budget.look(session.budget, payload.length);
    return payload.includes(CALL) || payload.includes(ESCAPED) ? command.parse(payload, session.settings) : null;
}

// Whether the frame whose head has been read makes the service end the session.
function isBroken(session) {
    const head = session.head;
    return !frames.isLegal(head, session.fragmented) || head.length > session.settings.message_bytes;
}

// A frame that passes as it is.
function note(session) {
    const head = session.head;
    if (isBroken(session)) {
        session.deaf = true;
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

function collect(session) {
    session.frame = Buffer.alloc(session.head.size + session.head.length);
    session.filled = 0;
    budget.copy(session.budget, session.frame.length);
}

// Adds to the frame that is collected; gives where its bytes end here.
function fill(session, bytes, at) {
    const end = Math.min(bytes.length, at + session.frame.length - session.filled);
    bytes.copy(session.frame, session.filled, at, end);
    session.filled += end - at;
    return end;
}

// The frame that has been collected; false if it waits.
function take(session) {
    const frame = session.frame;
    session.frame = null;
    frames.read_head(session.head, frame, 0);
    const what = judge(session, frame, 0);
    if (what === WAITS) {
        session.held = frame;
        return false;
    }
    if (what === PASSES) {
        speech.to_service(session, frame, false);
    } else {
        answer(session, what, frame, 0);
    }
    return true;
}

function hold(session, bytes) {
    session.held = session.held.length > 0 ? Buffer.concat([session.held, bytes]) : Buffer.from(bytes);
    budget.copy(session.budget, session.held.length);
}

// Gives up what is held: it goes on as it came.
function hold_nothing(session) {
    let held = session.held;
    if (session.frame !== null) {
        held = session.frame.subarray(0, session.filled);
        session.left = session.frame.length - session.filled;
        session.frame = null;
    }
    session.held = EMPTY;
    speech.to_service(session, held, false);
}

// A heartbeat or a call, whose frame is at `at`.
function answer(session, what, bytes, at) {
    speech.sign_of_life(session);
    if (what.method !== undefined) {
        carry_out(session, what, bytes.subarray(at, at + session.head.size + session.head.length));
        return;
    }
    budget.heartbeat(session.budget);
    session.io.count('heartbeats');
    if (what.answer !== null) {
        speech.say(session, what.answer);
    }
}

function carry_out(session, call, frame) {
    const settings = session.settings;
    if (session.in_flight >= settings.calls_in_flight) {
        const refusal = calls.error(call.id, 'too_many_calls', `${session.in_flight} calls are in flight`);
        budget.heartbeat(session.budget);
        session.io.count(refusal.code);
        speech.say(session, refusal.frame);
        return;
    }
    const number = ++session.calls;
    session.in_flight++;
    budget.call(session.budget);
    budget.carried(session.budget, call.data.length);
    session.takes = !budget.isOverspent(session.budget, settings);
    const who = {
        client: session.client,
        connection: session.connection,
        request_id: `${session.connection}-e${number}`,
    };
    session.give_up[number] = session.io.call(call, who, settings, (reply, code) => {
        session.in_flight--;
        session.give_up[number] = undefined;
        if (reply === null) {
            session.leaves = true;
            session.unmade.push(frame);
        } else {
            session.io.count(code);
            budget.carried(session.budget, reply.length);
            speech.say(session, reply);
        }
        pass_unmade(session);
        if (session.held.length > 0) {
            go_on(session, EMPTY, false);
        } else {
            settle(session);
        }
    });
}

// Leaves calls that could not be made to the service, in a gap between the client's frames.
function pass_unmade(session) {
    if (session.unmade.length > 0 && session.left === 0 && !session.fragmented && !session.deaf) {
        const unmade = session.unmade;
        session.unmade = [];
        unmade.forEach((frame) => {
            speech.to_service(session, frame, false);
        });
    }
}

// Service to client

function from_service(session, bytes, last) {
    if (session.state === 'ended') {
        end(session, 'the session has ended');
        return;
    }
    budget.event(session.budget, bytes.length);
    node.hear(session.node, session.io.now());
    if (session.state === 'handshake') {
        speech.to_client(session, bytes, last);
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
        if (session.waiting.length > 0 && speech.may_speak(session)) {
            speech.to_client(session, bytes.subarray(from, at), false);
            from = at;
            speech.speak(session);
        }
        const ours = last ? 0 : speech.own_pong(session, bytes, at);
        if (ours === 0) {
            at = frames.pass(session.down, bytes, at);
        } else {
            speech.to_client(session, bytes.subarray(from, at), false);
            at = from = at + ours;
        }
    }
    speech.to_client(session, from > 0 ? bytes.subarray(from) : bytes, last);
    speech.speak(session);
    settle(session);
}

// Frames follow a 101 that names client and connection.
function read_answer(session, bytes) {
    const answered = handshake.answered(session.handshake, bytes);
    if (answered === null) {
        return;
    }
    if (answered.client === null) {
        relay(session);
        return;
    }
    session.handshake = null;
    session.client = answered.client;
    session.connection = answered.connection;
    session.state = 'reading';
    session.passed_ms = session.io.now();
    session.io.count('sessions');
    set_alarm(session);
    let at = answered.end;
    while (at < bytes.length) {
        at = frames.pass(session.down, bytes, at);
    }
}

// A node that is silent while the client is

function set_alarm(session) {
    session.io.wake(node.look_in_ms(session.node, session.io.now(), session.settings));
}

function on_alarm(session) {
    const now_ms = session.io.now();
    budget.alarm(session.budget);
    if (node.isGivenUp(session.node, now_ms, session.settings)) {
        end(session, 'the node is silent');
        return;
    }
    speech.ask_node(session);
    if (!node.lives(session.node, now_ms, session.settings) && !node.isAsked(session.node)) {
        node.ask(session.node, now_ms); // amid a client's frame it cannot hear it, but would have said something by now
    }
    set_alarm(session);
    settle(session);
}

// The end of reading

// Ends reading when the session has cost its share and nothing is under way. While calls are, more of them are taken, but
// not at any price.
function settle(session) {
    const settings = session.settings;
    if (session.state !== 'reading' || !budget.isSpent(session.budget, settings)) {
        return;
    }
    const overspent = budget.isOverspent(session.budget, settings);
    const quiet = session.in_flight === 0 && session.waiting.length === 0 && session.unmade.length === 0;
    if (quiet && (session.pings === 0 || overspent)) {
        hold_nothing(session);
        session.io.count('relayed');
        relay(session);
        return;
    }
    if (overspent) {
        session.takes = false;
    }
    if (budget.isRuinous(session.budget, settings)) {
        give_up(session);
    }
}

// Answers what is under way, so that nginx need not go on holding what passes meanwhile.
function give_up(session) {
    for (let number = 1; number <= session.calls; number++) {
        if (session.give_up[number] !== undefined) { // one may end others
            session.give_up[number]();
        }
    }
    if (session.state === 'reading' && session.in_flight === 0) {
        end(session, 'what is to be said finds no gap');
    }
}

function relay(session) {
    session.state = 'relaying';
    session.io.relay();
}

// Ends the session with the close code of a service that stops, where a close frame can be told from what came before.
function end(session, why) {
    if (session.state !== 'ended' && speech.may_speak(session) && !session.down.closed) {
        speech.to_client(session, frames.close(RESTART), false);
    }
    session.state = 'ended'; // where `end` can't end it the next event does: a client answers a close frame
    session.io.end(why);
}

export default {open, from_client, from_service, on_alarm};
