/*
 * A wall clock of its own for the programs that this is preloaded into, set by a test while they run.
 *
 * CHAOS_CLOCK names a file of three numbers of 64 bits, nanoseconds: a moment of the machine's clock,
 * and by how much this clock is ahead before and after it. All that tells wall-clock time agrees with
 * it, the kernel's receive stamps included (SO_TIMESTAMPNS): a stamp from before the step is on the
 * clock before the step, as on a machine whose clock was set. Monotonic clocks go on undisturbed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define SLICE_NS (10 * 1000000LL)

static volatile const int64_t *steps; /* step_at, ahead_before, ahead_after */

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *map = mmap(NULL, 3 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) steps = map;
    close(fd);
}

static int64_t ahead_ns(int64_t real_ns) {
    if (!steps) return 0;
    return real_ns < steps[0] ? steps[1] : steps[2];
}

static int64_t to_ns(const struct timespec *at) { return at->tv_sec * SECOND + at->tv_nsec; }

static void shift(struct timespec *at) {
    int64_t ns = to_ns(at);
    ns += ahead_ns(ns);
    at->tv_sec = ns / SECOND;
    at->tv_nsec = ns % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) shift(at);
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

/* A deadline on the wall clock is as far away as that clock says, also when it is set meanwhile. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "sem_timedwait");
    for (;;) {
        struct timespec now, slice;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
        int64_t now_ns = to_ns(&now), left_ns = to_ns(until) - now_ns - ahead_ns(now_ns);
        int64_t end_ns = now_ns + (left_ns < SLICE_NS ? left_ns : SLICE_NS);
        slice.tv_sec = end_ns / SECOND;
        slice.tv_nsec = end_ns % SECOND;
        int failed = real(semaphore, &slice);
        if (!failed || errno != ETIMEDOUT || left_ns <= SLICE_NS) return failed;
    }
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    static ssize_t (*real)(int, struct msghdr *, int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "recvmsg");
    ssize_t size = real(fd, message, flags);
    if (size < 0) return size;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            shift(&stamp);
            memcpy(CMSG_DATA(c), &stamp, sizeof stamp);
        }
    }
    return size;
}
