/* Preloaded under callgrind, which slows a program down by 50 or so: makes its monotonic clock as much slower.
 * Otherwise what a server does by the clock (waterspout asks its selector every 100 us, at the latest) would
 * be counted 50 times as often as it happens.
 *
 *   cc -O2 -shared -fPIC -o slow_clock.so slow_clock.c */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOWER = 50 };

int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    if (result == 0 && id == CLOCK_MONOTONIC) {
        long long ns = (time->tv_sec * 1000000000LL + time->tv_nsec) / SLOWER;
        time->tv_sec = ns / 1000000000LL;
        time->tv_nsec = ns % 1000000000LL;
    }
    return result;
}
