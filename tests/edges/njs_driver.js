// Runs the edge's JavaScript for tests/edges/njs.py in the njs command line: reads FOLDER/job, writes FOLDER/result (JSON;
// what njs prints it may wrap).

import fs from 'fs';
import command from 'command.js';
import interim from 'interim.js';
import json from 'json.js';
import session from 'session.js';

const settings = {
    calls_allow: ['echo', 'orders.create', '1', 'rue', 'ul'], // the last are what is left of no names: [1], true, null
    calls_in_flight: 3,
    calls_timeout_s: 5,
    data_bytes: 65536,
    message_bytes: 131072,
    json_depth: 64,
    session_bytes: 1048576,
    session_calls: 100,
    node_silence_s: 35,
    node_timeout_s: 60,
};

function hex(bytes) {
    return bytes.toString('hex');
}

function parse(texts, more) {
    const ours = Object.assign({}, settings, more);
    return texts.map((text) => {
        const call = command.parse(Buffer.from(text, 'hex'), ours);
        return call === null ? null : call === command.PERHAPS ? 'perhaps' : [call.id, call.method, hex(call.data), call.traceparent];
    });
}

function documents(texts, more) {
    const ours = Object.assign({}, settings, more);
    return texts.map((text) => {
        const bytes = json.document(Buffer.from(text, 'hex'), ours.json_depth);
        return bytes === null ? null : hex(bytes);
    });
}

// Of an announced answer, cut anywhere: [status, body].
function announced(text) {
    const bytes = Buffer.from(text, 'hex');
    const end = interim.last_answer(bytes, true);
    const found = [];
    for (let size = 0; size <= bytes.length; size++) {
        const answer = interim.last_answer(bytes.subarray(0, size), false);
        if (answer !== null) {
            found.push(answer);
        }
    }
    return [found, [end]].map((them) => them.map((it) => [it.status, hex(it.body)]));
}

// What a session does with each step: ["client"|"service", hex, last], ["answer", number, hex], ["ms", count], in
// which the edge stands still, ["quiet", ms], in which it runs and hears nothing.
function run(job) {
    const did = [];
    const calls = [];
    let now = 1000000;
    let alarm = Infinity;
    const io = {
        to_client: (bytes, last) => did.push(['client', hex(bytes), last]),
        to_service: (bytes, last) => did.push(['service', hex(bytes), last]),
        call: (call, who, _, done) => {
            let open = true;
            const once = (frame) => {
                if (open) {
                    open = false;
                    done(frame);
                }
            };
            const number = calls.push(once) - 1;
            did.push(['call', call.id, call.method, hex(call.data), who.client, who.connection, who.request_id]);
            return () => once(Buffer.from([0x81, 1, 0x30 + number]));
        },
        relay: () => {
            did.push(['relay']);
            alarm = Infinity;
        },
        end: (why) => {
            did.push(['end', why]);
            alarm = Infinity;
        },
        wake: (wait_ms) => {
            alarm = now + wait_ms;
        },
        now: () => now,
        count: () => undefined,
    };
    const current = session.open(Object.assign({}, settings, job.settings), io);
    job.steps.forEach((step) => {
        if (step[0] === 'client') {
            session.from_client(current, Buffer.from(step[1], 'hex'), step[2] === true);
        } else if (step[0] === 'service') {
            session.from_service(current, Buffer.from(step[1], 'hex'), step[2] === true);
        } else if (step[0] === 'answer') {
            calls[step[1]](Buffer.from(step[2], 'hex'));
        } else if (step[0] === 'unmade') {
            calls[step[1]](null);
        } else if (step[0] === 'quiet') {
            const until = now + step[1];
            while (alarm <= until) {
                now = Math.max(now, alarm);
                alarm = Infinity;
                session.on_alarm(current);
            }
            now = until;
        } else {
            now += step[1];
        }
    });
    return did;
}

const folder = process.argv[process.argv.length - 1];
const job = JSON.parse(fs.readFileSync(`${folder}/job`).toString());
const result = job.kind === 'parse' ? parse(job.texts, job.settings)
    : job.kind === 'documents' ? documents(job.texts, job.settings)
        : job.kind === 'announced' ? job.texts.map(announced)
            : job.sessions.map(run);
fs.writeFileSync(`${folder}/result`, JSON.stringify(result));
