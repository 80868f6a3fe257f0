// The one command that the edge carries out. Whatever is not exactly that is the service's, which says what is wrong.

import json from 'json.js';

const KEYS = ['"type"', '"id"', '"method"', '"data"'];
const NUMBER = /^(0|-?[1-9][0-9]{0,14})$/; // within 2^53, and written in the only way
const STRING = /^"[^\\]*"$/;
const NULL = Buffer.from('null');

// {id, method, data} of a call that is allowed and within the limits, else null. `id` is JSON text and `data` bytes, both
// as they came. Source: docs/protocol.md, Commands.
function parse(bytes, settings) {
    const members = json.members(bytes, settings.json_depth);
    if (members === null) {
        return null;
    }
    const found = {};
    for (let i = 0; i < members.length; i++) {
        const name = members[i][0];
        if (KEYS.indexOf(name) < 0 || found[name] !== undefined) {
            return null;
        }
        found[name] = bytes.subarray(members[i][1], members[i][2]);
    }
    if (!found['"id"'] || !found['"method"'] || !found['"type"'] || found['"type"'].toString() !== '"call"') {
        return null;
    }
    const id = found['"id"'].toString();
    const method = found['"method"'].toString().slice(1, -1);
    const data = found['"data"'] || NULL;
    if (!isId(id) || settings.calls_allow.indexOf(method) < 0 || data.length > settings.data_bytes) {
        return null;
    }
    return {id: id, method: method, data: data};
}

// Up to 64 characters, counted with their quotes; an engine that counts a rare one twice leaves it to the service.
function isId(text) {
    return text.charAt(0) === '"' ? text.length <= 66 && STRING.test(text) : NUMBER.test(text);
}

export default {parse};
