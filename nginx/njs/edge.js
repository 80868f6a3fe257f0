// What nginx calls for each session between its http part and a node.

import calls from 'calls.js';
import metrics from 'metrics.js';
import session from 'session.js';

const GOES_ON = {flush: true, last: false};
const ENDS = {flush: true, last: true};

// js_filter
function filter(s) {
    let listening = true;
    const relay = () => {
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
            throw new Error(why); // the only thing that ends a session, if an event of nginx has brought us here
        },
        now: Date.now,
        count: metrics.count,
    };
    const current = session.open(JSON.parse(s.variables.tidegate_settings), io);
    s.on('upstream', (bytes, flags) => session.from_client(current, bytes, flags.last));
    s.on('downstream', (bytes, flags) => session.from_service(current, bytes, flags.last));
}

export default {filter};
