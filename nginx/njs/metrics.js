// Counters of all workers, where the version of njs has shared dictionaries (0.8.0 and later); nothing elsewhere.

const ZONE = 'tidegate';

function count(name) {
    if (ngx.shared !== undefined && ngx.shared[ZONE] !== undefined) {
        ngx.shared[ZONE].incr(name, 1, 0);
    }
}

export default {count};
