/* Preloaded under callgrind, where a request of hello takes 8 times as long as it does (63 us instead of 8):
 * makes the monotonic clock as much slower. Otherwise what a server does by the clock (waterspout asks its
 * selector after 100 us at the latest) would be counted 8 times as often as it happens.
 *
 *   cc -O2 -shared -fPIC -o slow_clock.so slow_clock.c */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOWER = 8 };

int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    if (result == 0 && id == CLOCK_MONOTONIC) {
        long long ns = (time->tv_sec * 1000000000LL + time->tv_nsec) / SLOWER;
        time->tv_sec = ns / 1000000000LL;
        time->tv_nsec = ns % 1000000000LL;
    }
    return result;
}
