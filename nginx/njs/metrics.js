// Counters of all workers, where the version of njs has shared dictionaries (0.8.0 and later) and njs_counters_stream.inc
// gives one; nothing is counted elsewhere.

const ZONE = 'tidegate_counters';
const OUTCOMES = ['reply', 'call_timeout', 'call_unavailable', 'call_bad_answer', 'too_many_calls'];
// The answers of http{}, counted as they are logged; the others share one number.
const RESPONSES = 'tidegate_responses';
const STATUSES = ['101', '400', '401', '403', '404', '405', '408', '413', '414', '426', '429', '431', '499', '500', '502',
    '503', '504'];
const HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ';

function count(name) {
    if (ngx.shared !== undefined && ngx.shared[ZONE] !== undefined) {
        ngx.shared[ZONE].incr(name, 1, 0);
    }
}

function value(name) {
    return ngx.shared[ZONE].get(name) || 0;
}

function counter(name, help, lines) {
    return `# HELP ${name} ${help}\n# TYPE ${name} counter\n${lines.join('')}`;
}

// js_preread of the server that gives the counters: an answer to a request that is still being sent breaks the pipe, which
// is an [error], and no counters.
function hear(s) {
    s.on('upload', (request) => {
        if (request.indexOf('\r\n\r\n') >= 0) {
            s.done();
        }
    });
}

// The counters as a whole HTTP answer: they live in stream{}, and http{} asks for them.
function answer() {
    const calls = OUTCOMES.map((code) => `tidegate_edge_calls_total{outcome="${code}"} ${value(code)}\n`);
    const text = [
        counter('tidegate_edge_calls_total', 'Calls that the edge answered, by outcome.', calls),
        counter('tidegate_edge_heartbeats_total', 'Text heartbeats that the edge took.', [
            `tidegate_edge_heartbeats_total ${value('heartbeats')}\n`,
        ]),
        counter('tidegate_edge_sessions_total', 'Sessions that were read, and that had cost their share.', [
            `tidegate_edge_sessions_total{state="read"} ${value('sessions')}\n`,
            `tidegate_edge_sessions_total{state="relayed"} ${value('relayed')}\n`,
        ]),
    ].join('');
    return `${HEAD}${text.length}\r\n\r\n${text}`;
}

// js_set of a variable that http{} asks for at the end of each request, to write a line to nowhere or not: not.
function counted(r) {
    const status = r.variables.status;
    ngx.shared[RESPONSES].incr(STATUSES.indexOf(status) < 0 ? 'other' : status, 1, 0);
    return '';
}

function gauge(name, help, value) {
    return `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${value}\n`;
}

function responses() {
    if (ngx.shared === undefined || ngx.shared[RESPONSES] === undefined) {
        return '';
    }
    const name = 'tidegate_edge_responses_total';
    return counter(name, 'Answers to clients, by status.', STATUSES.concat('other').map((status) =>
        `${name}{status="${status}"} ${ngx.shared[RESPONSES].get(status) || 0}\n`));
}

// js_content of /metrics. WebSockets are the writing connections, less the one that asks; each is there twice where it
// passes a second http server behind the filter.
function metrics(r) {
    const states = ['active', 'reading', 'writing', 'waiting'];
    const name = 'tidegate_edge_connections';
    const servers = Number(r.variables.tidegate_http_servers || 1);
    const websockets = Math.round((Number(r.variables.connections_writing) - 1) / servers);
    const text = [
        `# HELP ${name} Connections of nginx by state, those to itself too; writing: WebSockets, and this request.\n`,
        `# TYPE ${name} gauge\n`,
    ].concat(states.map((it) => `${name}{variant="njs",state="${it}"} ${r.variables[`connections_${it}`]}\n`), [
        gauge('tidegate_edge_websockets', 'Live WebSockets.', `tidegate_edge_websockets ${websockets}`),
        gauge('tidegate_edge_info', '1; what runs here.',
            `tidegate_edge_info{variant="njs",nginx="${r.variables.nginx_version}"} 1`),
        gauge('tidegate_edge_connections_limit', 'Connections that all workers together may have.',
            `tidegate_edge_connections_limit ${r.variables.tidegate_connections_limit}`),
        gauge('tidegate_edge_certificate_end_seconds',
            'Unix time at which the certificate ends, as it was rendered; NaN: unknown.',
            `tidegate_edge_certificate_end_seconds ${r.variables.tidegate_certificate_end}`),
        responses(),
    ]).join('');
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4';
    if (!r.variables.tidegate_counters) {
        r.return(200, text);
        return;
    }
    r.subrequest(r.variables.tidegate_counters, (reply) => {
        r.return(200, text + (reply.status === 200 ? reply.responseText : ''));
    });
}

export default {count, counted, hear, answer, metrics};
