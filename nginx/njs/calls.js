// A call becomes a request to the internal server of this nginx (calls.inc), and its answer becomes a text frame.

import frames from 'frames.js';
import json from 'json.js';

const ANSWER_DEPTH = 64; // as in service/tidegate/calls.py
const STATUS_BYTES = 4; // which interim.js puts before a body
const NULL = Buffer.from('null');
const EMPTY = Buffer.alloc(0);
const END = Buffer.from('}');

// `who` is {client, connection, request_id}. `done` is called once, with the frame for the client and with "reply" or an
// error's code: within calls_timeout_s, or not at all if the session ends before. Its frame is null where nobody has heard
// of the call: this nginx takes no requests any more (it was told to quit). The function that this gives ends the wait at once.
function make(call, who, settings, done) {
    let timer = setTimeout(() => {
        timer = null; // qjs ends the session with an error where a timer is cleared that has fired
        finish_with(done, timeout(call.id, settings));
    }, settings.calls_timeout_s * 1000);
    function finish(result) {
        if (timer !== null) {
            clearTimeout(timer);
            timer = null;
            finish_with(done, result);
        }
    }
    request(call, who, settings).then((answer) => {
        answer.arrayBuffer().then((body) => {
            finish(reply(call.id, answer, bytes(body), settings));
        }).catch(() => {
            finish(error(call.id, 'call_bad_answer', 'the answer ended too early'));
        });
    }).catch((reason) => {
        finish(failed(call.id, String(reason.message), settings));
    });
    return () => {
        finish(error(call.id, 'call_unavailable', 'given up: too much else to relay'));
    };
}

// What there is of an empty answer njs 0.7.9 lets nobody touch ("detached buffer").
function bytes(body) {
    try {
        return Buffer.from(body);
    } catch (_) {
        return EMPTY;
    }
}

function finish_with(done, result) {
    done(result.frame, result.code);
}

function request(call, who, settings) {
    const headers = {
        'Content-Type': 'application/json',
        'X-Client-Id': who.client,
        'X-Connection-Id': who.connection,
        'X-Request-Id': who.request_id,
        'X-Tidegate-Via': 'njs',
    };
    if (call.traceparent) {
        headers.traceparent = call.traceparent;
    }
    return ngx.fetch(`${settings.calls_url}/${call.method}`, {
        method: 'POST',
        body: call.data,
        headers: headers,
        max_response_body_size: settings.answer_bytes + STATUS_BYTES,
    });
}

// The functions below give {code, frame}.

// What the request ended with in place of an answer. The words are njs's own.
function failed(id, reason, settings) {
    if (reason.indexOf('too large') >= 0) {
        return too_large(id, settings);
    }
    if (reason.indexOf('connect failed') >= 0) {
        return {code: '', frame: null};
    }
    if (reason.indexOf('prematurely closed') >= 0 || reason.indexOf('invalid') >= 0) {
        return error(id, 'call_bad_answer', 'the answer ended too early');
    }
    return error(id, 'call_unavailable', 'could not connect to the application');
}

function reply(id, answer, body, settings) {
    const code = answer.headers.get('X-Tidegate-Failed');
    if (code === 'call_timeout') {
        return timeout(id, settings);
    }
    if (code === 'too_many_calls') {
        return error(id, code, 'too many calls are in flight: of this method, or of this client');
    }
    if (code) {
        return error(id, 'call_unavailable', 'could not connect to the application');
    }
    let status = answer.status;
    if (answer.headers.get('X-Tidegate-Interim')) { // interim.js
        status = Number(body.subarray(0, 3).toString());
        body = body.subarray(4);
        if (!(status > 0)) {
            return error(id, 'call_bad_answer', 'the answer is not valid HTTP');
        }
    }
    if (body.length > settings.answer_bytes) {
        return too_large(id, settings);
    }
    const data = body.length ? json.document(body, ANSWER_DEPTH) : NULL;
    if (data === null) {
        return error(id, 'call_bad_answer', 'the answer is not JSON in UTF-8');
    }
    const start = Buffer.from(`{"type":"reply","id":${id},"status":${status},"data":`);
    return {code: 'reply', frame: frames.text([start, data, END])};
}

function too_large(id, settings) {
    return error(id, 'call_bad_answer', `the answer is larger than ${settings.answer_bytes} bytes`);
}

function timeout(id, settings) {
    return error(id, 'call_timeout', `no answer within ${settings.calls_timeout_s} s`);
}

// `id` is JSON text, `message` needs no escape.
function error(id, code, message) {
    const text = `{"type":"error","id":${id},"code":"${code}","message":"${message}"}`;
    return {code: code, frame: frames.text([Buffer.from(text)])};
}

export default {make, error};
