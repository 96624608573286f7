/* Preloaded under callgrind, where a request of hello takes 8 times as much CPU time as it does (60 us instead of
 * 8): the monotonic clock shows an eighth of the CPU time that the process has taken. So what a server does by
 * the clock (waterspout asks its selector after 100 us at the latest) is done as often as without callgrind, and
 * as often when other processes are busy as when they are not. It stands still while the server sleeps.
 *
 *   cc -O2 -shared -fPIC -o slow_clock.so slow_clock.c */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOWER = 8 };
/* A clock that begins at zero could look as if something had happened before the beginning of time. */
static const long long BEGIN = 1000000000000LL;

int clock_gettime(clockid_t id, struct timespec *time) {
    if (id != CLOCK_MONOTONIC)
        return syscall(SYS_clock_gettime, id, time);
    int result = syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, time);
    long long ns = BEGIN + (time->tv_sec * 1000000000LL + time->tv_nsec) / SLOWER;
    time->tv_sec = ns / 1000000000LL;
    time->tv_nsec = ns % 1000000000LL;
    return result;
}
