// JSON text as bytes: checked as strictly as the service does, cut, and never made into values. What passes keeps its
// digits, its order and its repeats, and nothing is allocated for it: memory comes back only when the session ends.

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const ARRAY = 0x5b;
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const MINUS = 0x2d;
const ZERO = 0x30;
const POINT = 0x2e;
const PLAIN = /^[ !#-[\]-~"]*$/; // printable ASCII without a backslash: the next quote ends a string
const ESCAPED = '"\\/bfnrt';
const HEXADECIMAL = /^[0-9A-Fa-f]{4}$/;

// Where the white space that begins at `at` ends.
function space(bytes, at) {
    let byte = bytes[at];
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
        byte = bytes[++at];
    }
    return at;
}

// The functions below give where what begins at `at` ends, or -1.

function string(bytes, at, plain) {
    if (bytes[at] !== QUOTE) {
        return -1;
    }
    at++;
    if (plain) {
        return bytes.indexOf(QUOTE, at) + 1 || -1;
    }
    const end = bytes.length;
    while (at >= 0 && at < end) {
        const byte = bytes[at];
        if (byte === QUOTE) {
            return at + 1;
        }
        if (byte === BACKSLASH) {
            at = escaped(bytes, at + 1);
        } else if (byte < 0x20) {
            return -1;
        } else if (byte < 0x80) {
            at++;
        } else {
            at = character(bytes, at);
        }
    }
    return -1;
}

// What follows a backslash.
function escaped(bytes, at) {
    if (bytes[at] !== 0x75) {
        return at < bytes.length && ESCAPED.indexOf(String.fromCharCode(bytes[at])) >= 0 ? at + 1 : -1;
    }
    const unit = hexadecimal(bytes, at + 1);
    if (unit < 0xd800 || unit > 0xdfff) {
        return unit < 0 ? -1 : at + 5;
    }
    // Half a character: the first half, and only with the second one.
    const second = bytes[at + 5] === BACKSLASH && bytes[at + 6] === 0x75 ? hexadecimal(bytes, at + 7) : -1;
    return unit < 0xdc00 && second >= 0xdc00 && second <= 0xdfff ? at + 11 : -1;
}

// Four digits as a number, or -1.
function hexadecimal(bytes, at) {
    const text = bytes.toString('utf8', at, Math.min(at + 4, bytes.length));
    return HEXADECIMAL.test(text) ? parseInt(text, 16) : -1;
}

// One character of two to four bytes of UTF-8 (RFC 3629, 4): neither a surrogate nor longer than it needs to be.
function character(bytes, at) {
    const first = bytes[at];
    let low = 0x80;
    let high = 0xbf;
    let more = 1;
    if (first >= 0xe0 && first <= 0xef) {
        more = 2;
        low = first === 0xe0 ? 0xa0 : low;
        high = first === 0xed ? 0x9f : high;
    } else if (first >= 0xf0 && first <= 0xf4) {
        more = 3;
        low = first === 0xf0 ? 0x90 : low;
        high = first === 0xf4 ? 0x8f : high;
    } else if (first < 0xc2 || first > 0xdf) {
        return -1;
    }
    for (let i = 1; i <= more; i++) {
        const byte = bytes[at + i];
        if (!(byte >= low && byte <= high)) {
            return -1;
        }
        low = 0x80;
        high = 0xbf;
    }
    return at + more + 1;
}

function digits(bytes, at) {
    const start = at;
    while (bytes[at] >= ZERO && bytes[at] <= 0x39) {
        at++;
    }
    return at > start ? at : -1;
}

function number(bytes, at) {
    if (bytes[at] === MINUS) {
        at++;
    }
    at = bytes[at] === ZERO ? at + 1 : digits(bytes, at);
    if (at >= 0 && bytes[at] === POINT) {
        at = digits(bytes, at + 1);
    }
    if (at >= 0 && (bytes[at] === 0x65 || bytes[at] === 0x45)) {
        const sign = bytes[at + 1];
        at = digits(bytes, sign === 0x2b || sign === MINUS ? at + 2 : at + 1);
    }
    return at;
}

function word(bytes, at, text) {
    const end = at + text.length;
    return bytes.toString('utf8', at, Math.min(end, bytes.length)) === text ? end : -1;
}

function scalar(bytes, at, plain) {
    switch (bytes[at]) {
    case QUOTE:
        return string(bytes, at, plain);
    case 0x74:
        return word(bytes, at, 'true');
    case 0x66:
        return word(bytes, at, 'false');
    case 0x6e:
        return word(bytes, at, 'null');
    default:
        return number(bytes, at);
    }
}

// A member's key, its colon and the white space after it.
function key(bytes, at, plain) {
    at = string(bytes, at, plain);
    if (at < 0) {
        return -1;
    }
    at = space(bytes, at);
    return bytes[at] === COLON ? space(bytes, at + 1) : -1;
}

// A value; -1 also if it nests deeper than `most` levels.
function value(bytes, at, most, plain) {
    const ends = [];
    for (;;) {
        const byte = bytes[at];
        if (byte === OBJECT || byte === ARRAY) {
            if (ends.length === most) {
                return -1;
            }
            const end = byte + 2;
            at = space(bytes, at + 1);
            if (bytes[at] !== end) {
                ends.push(end);
                at = end === OBJECT_END ? key(bytes, at, plain) : at;
                if (at < 0) {
                    return -1;
                }
                continue;
            }
            at++;
        } else {
            at = scalar(bytes, at, plain);
            if (at < 0) {
                return -1;
            }
        }
        at = after(bytes, at, ends, plain);
        if (ends.length === 0 || at < 0) {
            return at;
        }
    }
}

// A value has ended at `at`: where the next one of its array or object begins. `ends` loses those that end here.
function after(bytes, at, ends, plain) {
    while (ends.length > 0) {
        at = space(bytes, at);
        const end = ends[ends.length - 1];
        if (bytes[at] === COMMA) {
            at = space(bytes, at + 1);
            return end === OBJECT_END ? key(bytes, at, plain) : at;
        }
        if (bytes[at] !== end) {
            return -1;
        }
        ends.pop();
        at++;
    }
    return at;
}

// Whether strings may be skipped from quote to quote.
function isPlain(bytes) {
    return PLAIN.test(bytes.toString());
}

// The members of an object as [key as JSON text, where its value begins, where it ends]; null if `bytes` are not one
// JSON object in UTF-8 of at most `most` levels.
function members(bytes, most) {
    const plain = isPlain(bytes);
    const found = [];
    let at = space(bytes, 0);
    if (bytes[at] !== OBJECT) {
        return null;
    }
    at = space(bytes, at + 1);
    let more = bytes[at] !== OBJECT_END;
    while (more) {
        const name = at;
        const name_end = string(bytes, at, plain);
        const start = key(bytes, at, plain);
        at = start < 0 ? -1 : value(bytes, start, most - 1, plain);
        if (at < 0) {
            return null;
        }
        found.push([bytes.toString('utf8', name, name_end), start, at]);
        at = space(bytes, at);
        more = bytes[at] === COMMA;
        if (more) {
            at = space(bytes, at + 1);
        }
    }
    return bytes[at] === OBJECT_END && space(bytes, at + 1) === bytes.length ? found : null;
}

// One JSON text without the white space around it; null if `bytes` are not that, in UTF-8, of at most `most` levels.
function document(bytes, most) {
    const start = space(bytes, 0);
    const end = value(bytes, start, most, isPlain(bytes));
    return end >= 0 && space(bytes, end) === bytes.length ? bytes.subarray(start, end) : null;
}

export default {members, document};
