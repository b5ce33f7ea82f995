/* A disk that fails: preloaded into hubd, it lets the journal's and the
 * vault's writes and flushes fail on order.
 *
 * The order is the file named by HUB_DISK_ORDER, looked for at every write
 * and flush until it is there: "CALL COUNT ERRNO", where CALL is
 *   write  the COUNTth write from then on fails with ERRNO, nothing written
 *   keep   the COUNTth flush fails with ERRNO, and the data gets to the disk
 *   drop   the COUNTth flush fails with ERRNO, and what was written since the
 *          flush before is gone, as when the kernel drops dirty pages
 *   lie    from the COUNTth on, flushes do nothing and say that they did
 * Each but the last fails once: whoever tries again is told that all is well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define RANGES 4096

struct range {
    int fd;
    off_t at;
    size_t len;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range unflushed[RANGES];
static size_t ranges;
static char call[16];
static long left;
static int error_number;
static int armed;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);

__attribute__((constructor)) static void find(void) {
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
}

/* Only files of journal and vault: an index may fail as it likes. */
static int ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return strstr(path, "/ledger/") != NULL || strstr(path, "/vault/") != NULL;
}

static void look_for_order(void) {
    const char *name = getenv("HUB_DISK_ORDER");
    if (armed || name == NULL)
        return;
    FILE *file = fopen(name, "re");
    if (file == NULL)
        return;
    armed = fscanf(file, "%15s %ld %d", call, &left, &error_number) == 3;
    fclose(file);
}

/* Whether it is this call's turn to fail. */
static int falls(const char *what) {
    return armed && strcmp(call, what) == 0 && left > 0 && --left == 0;
}

static void forget(int fd) {
    size_t kept = 0;
    for (size_t n = 0; n < ranges; n++)
        if (unflushed[n].fd != fd)
            unflushed[kept++] = unflushed[n];
    ranges = kept;
}

static void drop(int fd) {
    static const char zeros[65536];
    for (size_t n = 0; n < ranges; n++) {
        if (unflushed[n].fd != fd)
            continue;
        for (size_t done = 0; done < unflushed[n].len;) {
            size_t piece = unflushed[n].len - done;
            if (piece > sizeof zeros)
                piece = sizeof zeros;
            ssize_t put = real_pwrite(fd, zeros, piece, unflushed[n].at + (off_t)done);
            if (put <= 0)
                return;
            done += (size_t)put;
        }
    }
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) {
    if (!ours(fd))
        return real_pwrite(fd, bytes, len, at);
    pthread_mutex_lock(&lock);
    look_for_order();
    ssize_t put = -1;
    if (falls("write")) {
        errno = error_number;
    } else {
        put = real_pwrite(fd, bytes, len, at);
        if (put > 0 && ranges < RANGES)
            unflushed[ranges++] = (struct range){fd, at, (size_t)put};
    }
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return put;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return pwrite64(fd, bytes, len, at);
}

static int flush(int fd, int (*real)(int)) {
    if (!ours(fd))
        return real(fd);
    pthread_mutex_lock(&lock);
    look_for_order();
    int dropped = falls("drop"), kept_data = falls("keep"), done = 0;
    if (armed && strcmp(call, "lie") == 0 && --left <= 0) {
        /* Nothing reaches the disk, and nobody is told. */
    } else {
        if (dropped)
            drop(fd);
        done = real(fd);
        forget(fd);
    }
    int kept = errno;
    if (dropped || kept_data) {
        done = -1;
        kept = error_number;
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
    return done;
}

int fdatasync(int fd) { return flush(fd, real_fdatasync); }

int fsync(int fd) { return flush(fd, real_fsync); }
