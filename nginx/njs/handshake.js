// The handshake as it passes: who the client is, if the service has let it in. Nothing else says it.

const HEAD_BYTES = 16384;
const HEAD_END = Buffer.from('\r\n\r\n');
const SWITCHED = /^HTTP\/1\.1 101 /;
const CLIENT = /\r\nTidegate-Client: ([A-Za-z0-9_.@-]+)(\r|$)/i;
const CONNECTION = /\r\nTidegate-Connection: ([A-Za-z0-9_.@-]+)(\r|$)/i;
const EMPTY = Buffer.alloc(0);

// `answer`: of its head, as much as has come. `tail`: the last bytes of the request.
function begin() {
    return {answer: EMPTY, tail: EMPTY};
}

// Bytes of the request.
function asked(handshake, bytes) {
    const both = Buffer.concat([handshake.tail, bytes.subarray(Math.max(0, bytes.length - 4))]);
    handshake.tail = both.subarray(Math.max(0, both.length - 4));
}

// Bytes of the answer. Null while its head is incomplete; then {end} where the frames begin in `bytes`, with client and
// connection if frames follow that an edge may read: a client that has sent anything beyond its request has not waited
// for the answer, and is none of ours.
function answered(handshake, bytes) {
    const before = handshake.answer.length;
    handshake.answer = before > 0 ? Buffer.concat([handshake.answer, bytes]) : bytes;
    const end = handshake.answer.indexOf(HEAD_END);
    if (end < 0 && handshake.answer.length <= HEAD_BYTES) {
        return null;
    }
    const head = handshake.answer.subarray(0, Math.max(end, 0)).toString();
    const client = CLIENT.exec(head);
    const connection = CONNECTION.exec(head);
    const named = SWITCHED.test(head) && client !== null && connection !== null && handshake.tail.equals(HEAD_END);
    return {
        end: end + HEAD_END.length - before,
        client: named ? client[1] : null,
        connection: named ? connection[1] : null,
    };
}

export default {begin, asked, answered};
