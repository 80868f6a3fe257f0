// The one command that the edge carries out. Whatever is not exactly that is the service's, which says what is wrong.

import json from 'json.js';

const KEYS = ['"type"', '"id"', '"method"', '"data"', '"traceparent"'];
// Of W3C Trace Context, 3.2: version, trace, span, flags.
const TRACEPARENT = /^"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"$/;
const NUMBER = /^(0|-?[1-9][0-9]{0,14})$/; // within 2^53, and written in the only way
const STRING = /^"[^\\]*"$/;
const NULL = Buffer.from('null');
const PERHAPS = {perhaps: true};

// {id, method, data, traceparent or ''} of a call that is allowed and within the limits; `id` is JSON text and `data` bytes, both as they
// came. PERHAPS: it may be a call that the service carries out, written in a way that is left to it. Null: nobody carries
// it out as a call. Source: docs/protocol.md, Commands.
function parse(bytes, settings) {
    const members = json.members(bytes, settings.json_depth);
    if (members === null) {
        return null;
    }
    const found = {};
    let plain = true;
    let known = true;
    for (let i = 0; i < members.length; i++) {
        const name = members[i][0];
        plain = plain && name.indexOf('\\') < 0 && found[name] === undefined;
        known = known && KEYS.indexOf(name) >= 0;
        found[name] = bytes.subarray(members[i][1], members[i][2]);
    }
    const type = text(found['"type"']);
    const method = text(found['"method"']);
    if (!plain || isEscaped(type) || (type === '"call"' && isEscaped(method))) {
        return PERHAPS;
    }
    const data = found['"data"'] || NULL;
    if (type !== '"call"' || !known || settings.calls_allow.indexOf(method.slice(1, -1)) < 0 || method.charAt(0) !== '"') {
        return null;
    }
    const id = text(found['"id"']);
    if (id === '' || data.length > settings.data_bytes) {
        return null;
    }
    const traceparent = text(found['"traceparent"']);
    if (isEscaped(traceparent)) {
        return PERHAPS;
    }
    if (traceparent !== '' && traceparent !== 'null' && !TRACEPARENT.test(traceparent)) {
        return null;
    }
    const call = {id: id, method: method.slice(1, -1), data: data, traceparent: traceparent.slice(1, -1)};
    if (traceparent === 'null') {
        call.traceparent = '';
    }
    return isId(id) ? call : PERHAPS;
}

function text(bytes) {
    return bytes === undefined ? '' : bytes.toString();
}

function isEscaped(value) {
    return value.charAt(0) === '"' && value.indexOf('\\') >= 0;
}

// Up to 64 characters, counted with their quotes; an engine that counts a rare one twice leaves it to the service.
function isId(id) {
    return id.charAt(0) === '"' ? id.length <= 66 && STRING.test(id) : NUMBER.test(id);
}

export default {PERHAPS, parse};
