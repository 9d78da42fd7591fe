/* Loaded in front of the C library of a real node: a disk that fails, or a clock that stands in 1970.
 *
 * INTERPOSE_FAULT names a file. While it exists, what it holds happens to the node's store (store.db and its log): "sync" makes fsync fail with EIO, "write" makes writes
 * fail with EROFS, as a file system does that the kernel has turned read-only.
 * INTERPOSE_CLOCK, if set, makes the wall clock begin in 1970 when the process starts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fault(int fd, char kind) {
    const char *path = getenv("INTERPOSE_FAULT");
    char link[64], target[4096], said[1];
    if (!path) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    const char *name = strrchr(target, '/');
    if (!name || (strcmp(name, "/store.db") && strcmp(name, "/store.db-wal"))) return 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t got = read(file, said, 1);
    close(file);
    return got == 1 && said[0] == kind;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) {
    if (fault(fd, 's')) { errno = EIO; return -1; }
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    if (fault(fd, 's')) { errno = EIO; return -1; }
    return REAL(fdatasync)(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fault(fd, 'w')) { errno = EROFS; return -1; }
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    if (fault(fd, 'w')) { errno = EROFS; return -1; }
    return REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    if (fault(fd, 'w')) { errno = EROFS; return -1; }
    return REAL(pwrite64)(fd, bytes, count, at);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static time_t began;
    int result = REAL(clock_gettime)(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && getenv("INTERPOSE_CLOCK")) {
        if (!began) began = time->tv_sec;
        time->tv_sec -= began;
    }
    return result;
}
