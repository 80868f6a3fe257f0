// Answers that an application announces (RFC 9110, 15.2: 100 Continue, 103 Early Hints). nginx takes the first answer for
// the last, and what follows for its body, which has no end. Here the last one is found in it, and given to calls.js as a
// body of its own: its status, a line feed, and the body it came with. Nothing else is touched.
//
// The `fetch` of njs 0.7.9 waits until nginx closes the connection, which it does not do in time. There an announced
// answer is none: the call ends at once, with call_bad_answer.

const NAME = 'X-Tidegate-Interim';
const HEAD_END = Buffer.from('\r\n\r\n');
const LINE_END = Buffer.from('\r\n');
const STATUS = /^HTTP\/1\.[01] ([1-9][0-9][0-9])(\s|$)/;
const CHUNKED = /\r\nTransfer-Encoding:[^\r]*chunked[ \t]*(\r|$)/i;
const LENGTH = /\r\nContent-Length:[ \t]*([0-9]{1,9})[ \t]*(\r|$)/i;
const CHUNK = /^[0-9A-Fa-f]{1,8}/;
const MOST_BYTES = 524288; // more than any answer may have: it is too large as it is
const MALFORMED = {status: '000', body: Buffer.alloc(0)};

let seen = MALFORMED.body; // of this answer

// js_header_filter
function head(r) {
    if (r.status >= 200) {
        return;
    }
    if (r.status === 101 || parseInt(njs.version, 10) < 1) {
        throw new Error(`an answer that begins with ${r.status}`); // ends the request
    }
    seen = MALFORMED.body;
    r.headersOut[NAME] = '1';
    r.status = 200; // else the body would be sent without an end
}

// js_body_filter
function body(r, data, flags) {
    if (r.headersOut[NAME] === undefined) {
        r.sendBuffer(data, flags);
        r.done();
        return;
    }
    seen = Buffer.concat([seen, data]);
    const answer = last_answer(seen, flags.last);
    if (answer !== null) {
        r.sendBuffer(Buffer.concat([Buffer.from(`${answer.status}\n`), answer.body]), {last: true, flush: true});
        r.done();
    }
}

// {status, body} of the first answer that is no announcement; null while it is not complete. `ended`: no more comes.
function last_answer(bytes, ended) {
    let at = 0;
    if (bytes.length > MOST_BYTES) {
        return {status: '200', body: bytes};
    }
    for (;;) {
        const end = bytes.indexOf(HEAD_END, at);
        if (end < 0) {
            return ended ? MALFORMED : null;
        }
        const text = bytes.subarray(at, end).toString();
        const status = STATUS.exec(text);
        if (status === null || status[1] === '101') {
            return MALFORMED;
        }
        at = end + HEAD_END.length;
        if (status[1].charAt(0) !== '1') {
            const found = body_of(text, status[1], bytes, at, ended);
            return found === null ? (ended ? MALFORMED : null) : {status: status[1], body: found};
        }
    }
}

// The body that begins at `at`, as its head says; null while it is not complete.
function body_of(text, status, bytes, at, ended) {
    if (status === '204' || status === '304') {
        return MALFORMED.body;
    }
    if (CHUNKED.test(text)) {
        return chunks(bytes, at);
    }
    const length = LENGTH.exec(text);
    if (length === null) {
        return ended ? bytes.subarray(at) : null;
    }
    const end = at + Number(length[1]);
    return end <= bytes.length ? bytes.subarray(at, end) : null;
}

function chunks(bytes, at) {
    const parts = [];
    for (;;) {
        const end = bytes.indexOf(LINE_END, at);
        const size = end < 0 ? null : CHUNK.exec(bytes.subarray(at, end).toString());
        if (size === null) {
            return null;
        }
        const start = end + LINE_END.length;
        const length = parseInt(size[0], 16);
        if (length === 0) {
            return bytes.indexOf(HEAD_END, end) < 0 ? null : Buffer.concat(parts);
        }
        at = start + length + LINE_END.length;
        if (at > bytes.length) {
            return null;
        }
        parts.push(bytes.subarray(start, start + length));
    }
}

export default {head, body, last_answer};
