// RFC 6455 frames as bytes: heads are read, small frames are made. Nothing is remembered here.

const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const FIN = 0x80;
const MASKED = 0x80;

// A head that is read again and again: an object for each frame would stay until the session ends.
function blank() {
    return {fin: false, broken: false, opcode: 0, masked: false, size: 0, length: 0};
}

// Reads the head of the frame that begins at `at` into `into`; false while it is incomplete. `size` counts its own bytes,
// the mask's too.
function read_head(into, bytes, at) {
    const have = bytes.length - at;
    if (have < 2) {
        return false;
    }
    const second = bytes[at + 1];
    const masked = second >= MASKED;
    const short = second & 0x7f;
    const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
    const size = 2 + extra + (masked ? 4 : 0);
    if (have < size) {
        return false;
    }
    let length = extra ? 0 : short;
    for (let i = 0; i < extra; i++) {
        length = length * 256 + bytes[at + 2 + i]; // above 2^53 inexact, and then too long for anybody
    }
    const first = bytes[at];
    into.fin = first >= FIN;
    // Reserved bits, or a length that is not in its shortest form (RFC 6455, 5.2).
    into.broken = (first & 0x70) !== 0 || (extra === 2 && length < 126) || (extra === 8 && length < 65536);
    into.opcode = first & 0x0f;
    into.masked = masked;
    into.size = size;
    into.length = length;
    return true;
}

// Whether a service may take such a frame from a client. `fragmented`: a message has begun and not ended.
function isLegal(head, fragmented) {
    if (!head.masked || head.broken) {
        return false;
    }
    if (head.opcode >= CLOSE) {
        return head.opcode <= PONG && head.fin && head.length < 126;
    }
    return head.opcode <= 2 && (head.opcode === 0) === fragmented;
}

// Four bytes of payload of the masked frame at `at`, as one number.
function four_bytes(bytes, at, head) {
    const start = at + head.size;
    let number = 0;
    for (let i = 0; i < 4; i++) {
        number = number * 256 + (bytes[start + i] ^ bytes[start - 4 + i]);
    }
    return number;
}

// The payload of the whole masked frame at `at`, as bytes of its own.
function payload(frame, at, head) {
    const start = at + head.size;
    const end = start + head.length;
    const bytes = Buffer.alloc(head.length);
    const k0 = frame[start - 4];
    const k1 = frame[start - 3];
    const k2 = frame[start - 2];
    const k3 = frame[start - 1];
    let to = 0;
    let from = start;
    while (from + 3 < end) {
        bytes[to] = frame[from] ^ k0;
        bytes[to + 1] = frame[from + 1] ^ k1;
        bytes[to + 2] = frame[from + 2] ^ k2;
        bytes[to + 3] = frame[from + 3] ^ k3;
        to += 4;
        from += 4;
    }
    while (from < end) {
        bytes[to] = frame[from] ^ frame[start - 4 + (to & 3)];
        to++;
        from++;
    }
    return bytes;
}

// A whole text message to a client, put together from buffers.
function text(parts) {
    let length = 0;
    for (let i = 0; i < parts.length; i++) {
        length += parts[i].length;
    }
    const extra = length < 126 ? 0 : length < 65536 ? 2 : 8;
    const frame = Buffer.alloc(2 + extra + length);
    frame[0] = FIN | TEXT;
    if (extra === 0) {
        frame[1] = length;
    } else if (extra === 2) {
        frame[1] = 126;
        frame.writeUInt16BE(length, 2);
    } else {
        frame[1] = 127;
        frame.writeUInt32BE(length, 6); // the upper half stays 0
    }
    let at = 2 + extra;
    for (let i = 0; i < parts.length; i++) {
        parts[i].copy(frame, at);
        at += parts[i].length;
    }
    return frame;
}

// A control frame to the service, empty: the service's marks are not, so nothing is confirmed by it.
// The mask is 0: it has nothing to hide.
function control(opcode) {
    return Buffer.from([FIN | opcode, MASKED, 0, 0, 0, 0]);
}

// A close frame to a client.
function close(code) {
    return Buffer.from([FIN | CLOSE, 2, code >> 8, code & 0xff]);
}

// Where in a stream of frames we are, while they pass by in pieces.
function tracker() {
    return {fragmented: false, closed: false, got: 0, first: 0, size: 2, length: 0, left: 0};
}

// Nothing but whole frames has passed.
function isBetween(track) {
    return track.got === 0 && track.left === 0;
}

// Moves on to the end of the frame that is under way, or that begins at `at`; gives where that is, or where the bytes end.
function pass(track, bytes, at) {
    const end = bytes.length;
    while (track.left === 0) {
        if (at === end) {
            return at;
        }
        const byte = bytes[at++];
        const got = track.got++;
        if (got === 0) {
            track.first = byte;
            track.size = 2;
        } else if (got === 1) {
            const short = byte & 0x7f;
            const extra = short === 126 ? 2 : short === 127 ? 8 : 0;
            track.size = 2 + extra + (byte >= MASKED ? 4 : 0);
            track.extra = extra;
            track.length = extra ? 0 : short;
        } else if (got < 2 + track.extra) {
            track.length = track.length * 256 + byte;
        }
        if (got > 0 && track.got === track.size) {
            track.got = 0;
            if (track.length === 0) {
                ended(track);
                return at;
            }
            track.left = track.length;
        }
    }
    const here = Math.min(track.left, end - at);
    track.left -= here;
    if (track.left === 0) {
        ended(track);
    }
    return at + here;
}

function ended(track) {
    const opcode = track.first & 0x0f;
    if (opcode === CLOSE) {
        track.closed = true;
    } else if (opcode < CLOSE) {
        track.fragmented = track.first < FIN;
    }
}

export default {
    TEXT, CLOSE, PING, PONG, blank, read_head, isLegal, four_bytes, payload, text, control, close, tracker, isBetween, pass,
};
