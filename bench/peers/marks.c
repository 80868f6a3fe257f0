/* Tells callgrind what to count: between begin and end, summed up until dump names the sum. */
#include <valgrind/callgrind.h>

int under_valgrind(void) { return (int)RUNNING_ON_VALGRIND; }

void begin(void) { CALLGRIND_START_INSTRUMENTATION; }

void end(void) { CALLGRIND_STOP_INSTRUMENTATION; }

void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
