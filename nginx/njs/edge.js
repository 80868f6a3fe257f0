// What nginx calls for each session between its http part and a node.

import calls from 'calls.js';
import metrics from 'metrics.js';
import session from 'session.js';

const GOES_ON = {flush: true, last: false};
const ENDS = {flush: true, last: true};

let alarm = null; // of this session: each has a copy of this code

// nginx logs an error for what a session leaves waiting.
function silence() {
    if (alarm !== null) {
        clearTimeout(alarm);
        alarm = null;
    }
}

// js_set, asked by the log when the session has ended: nothing is to be logged.
function ended() {
    silence();
    return '';
}

// js_filter
function filter(s) {
    let listening = true;
    let inside = false; // an event of nginx has brought us here
    const relay = () => {
        silence();
        if (listening) { // twice would end the worker: njs 0.7.9
            listening = false;
            s.off('upstream');
            s.off('downstream');
        }
    };
    // A side that has gone takes nothing more, which njs throws; nginx finds it out by itself and ends the session.
    const sender = (send) => (bytes, last) => {
        try {
            send(bytes, last ? ENDS : GOES_ON);
        } catch (_) {
            relay();
        }
    };
    const io = {
        to_client: sender((bytes, flags) => s.sendDownstream(bytes, flags)),
        to_service: sender((bytes, flags) => s.sendUpstream(bytes, flags)),
        call: calls.make,
        relay: relay,
        end: (why) => {
            // The only thing that ends a session. Thrown elsewhere it ends the client's half of it, and the worker as soon as
            // something comes from the node (njs 0.7.9).
            if (inside) {
                throw new Error(why);
            }
        },
        wake: (wait_ms) => {
            silence();
            alarm = setTimeout(() => {
                alarm = null;
                session.on_alarm(current);
            }, wait_ms);
        },
        now: Date.now,
        count: metrics.count,
    };
    const current = session.open(JSON.parse(s.variables.tidegate_settings), io);
    const event = (handle) => (bytes, flags) => {
        inside = true;
        handle(current, bytes, flags.last);
        inside = false;
    };
    s.on('upstream', event(session.from_client));
    s.on('downstream', event(session.from_service));
}

export default {filter, ended};
