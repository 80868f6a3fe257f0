// What nginx calls: the filter of each session, and what the log and the metrics ask for.

import calls from 'calls.js';
import metrics from 'metrics.js';
import session from 'session.js';

const GOES_ON = {flush: true, last: false};
const ENDS = {flush: true, last: true};

// js_filter of the servers between nginx's http part and a node.
function filter(s) {
    const settings = JSON.parse(s.variables.tidegate_settings);
    const io = {
        to_client: (bytes, last) => s.sendDownstream(bytes, last ? ENDS : GOES_ON),
        to_service: (bytes, last) => s.sendUpstream(bytes, last ? ENDS : GOES_ON),
        call: (call, who, done) => calls.make(call, who, settings, done),
        relay: () => {
            s.off('upstream');
            s.off('downstream');
        },
        now: Date.now,
        count: metrics.count,
    };
    const current = session.open(settings, io);
    s.on('upstream', (bytes, flags) => session.from_client(current, bytes, flags.last));
    s.on('downstream', (bytes, flags) => session.from_service(current, bytes, flags.last));
}

export default {filter};
