/* Fault injection for the tests: disk failures and power cuts of a real process on Linux, by LD_PRELOAD. tests/e2e/shim.rs compiles
 * and drives it.
 *
 * It wraps libc calls on the files below SHIM_DIR, and records how to undo changes that are not synced:
 *
 *   pwrite          the previous bytes, until an fsync or fdatasync of the file that began later has succeeded
 *   create, rename, unlink    the names (an unlinked file is moved to the grave), until an fsync of the directory
 *   length          the file's length at its last sync (space is reserved by a system call that the shim does not see)
 *
 * The file SHIM_DIR.control contains a fault; the shim removes it when it has read it, within milliseconds:
 *
 *   cut SEED             the power fails: a random part of the unsynced changes is undone, each 512-byte sector and each name
 *                        independently, files are truncated, index files (*.idx), which are never synced, get random pages,
 *                        and the process is killed
 *   write-error NAME     the next write to a file whose path contains NAME writes half of its bytes and fails with EIO
 *   read-error NAME@BLOCK    from now on, reads of that 4096-byte block of such a file fail with EIO
 *   write-full NAME      from now on, every write to such a file fails with ENOSPC
 *   sync-error NAME      the next sync of such a file fails with EIO, and the data that it covers is dropped from the page
 *                        cache, as Linux does: a second sync succeeds without having written the data
 *   sync-hang NAME       the next sync of such a file does not return
 *   sync-slow MILLIS     from now on, every sync takes that much longer
 *   clock SECONDS        from now on, the wall clock is that far ahead of the machine's
 *
 * SHIM_CLOCK=SECONDS sets the clock from the start of the process.
 *
 * SHIM_CUT_OPS=N SHIM_SEED=S cuts the power at the N-th operation, which may be during recovery.
 *
 * Creating and renaming a directory is never undone: that happens only when a log is created.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define FDS 65536

/* How to undo a write: the previous bytes, or NULL for zeros. */
struct undo {
    struct undo *older;
    uint64_t seq;
    off_t at;
    size_t len;
    char *old;
};

struct file {
    struct file *next;
    dev_t dev;
    ino_t ino;
    int fd; /* a duplicate that the shim keeps open */
    off_t durable;
    off_t seen; /* the end of the last write that the shim saw, or the file's length when it was opened */
    struct undo *newest;
    char path[PATH_MAX];
};

enum kind { CREATED, UNLINKED, RENAMED };

/* How to undo the change of a name. */
struct name {
    struct name *older;
    uint64_t seq;
    enum kind kind;
    ino_t ino;
    char path[PATH_MAX];
    char from[PATH_MAX];
    char aside[PATH_MAX]; /* the grave of the file that had the name, or empty */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX], control[PATH_MAX + 16], grave[PATH_MAX + 16];
static size_t dir_len;
static uint64_t seq, ops, cut_ops, rng, graves;
static struct file *files;
static struct name *names;
static _Atomic long long clock_ahead, sync_slow;
static char write_error[256], write_full[256], sync_error[256], sync_hang[256], read_error[256];
static off_t bad_block;

/* The open files and directories, by descriptor. */
static struct file *open_files[FDS];
static char *open_dirs[FDS];

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_preadv2)(int, const struct iovec *, int, off_t, int);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void die(const char *what)
{
    fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void *find(const char *symbol)
{
    void *found = dlsym(RTLD_NEXT, symbol);
    if (!found) {
        die(symbol);
    }
    return found;
}

static void *watch(void *unused);

__attribute__((constructor)) static void begin(void)
{
    real_open = find("open64");
    real_close = find("close");
    real_pwrite = find("pwrite64");
    real_pread = find("pread64");
    real_preadv2 = find("preadv2");
    real_write = find("write");
    real_fsync = find("fsync");
    real_fdatasync = find("fdatasync");
    real_rename = find("rename");
    real_unlink = find("unlink");
    real_clock_gettime = find("clock_gettime");
    const char *given = getenv("SHIM_DIR");
    if (!given || strlen(given) > PATH_MAX - 64) {
        die("SHIM_DIR");
    }
    strcpy(dir, given);
    dir_len = strlen(dir);
    snprintf(control, sizeof control, "%s.control", dir);
    snprintf(grave, sizeof grave, "%s.grave", dir);
    if (mkdir(grave, 0700) && errno != EEXIST) {
        die(grave);
    }
    const char *text = getenv("SHIM_CUT_OPS");
    cut_ops = text ? strtoull(text, NULL, 10) : 0;
    text = getenv("SHIM_CLOCK");
    clock_ahead = text ? strtoll(text, NULL, 10) : 0;
    text = getenv("SHIM_SEED");
    rng = text ? strtoull(text, NULL, 10) : 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, NULL)) {
        die("a thread");
    }
}

static int ours(const char *path)
{
    return dir_len && !strncmp(path, dir, dir_len) && (path[dir_len] == '/' || !path[dir_len]);
}

/* splitmix64 */
static uint64_t random_below(uint64_t limit)
{
    uint64_t z = rng += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % limit;
}

static void parent(const char *path, char *out)
{
    strcpy(out, path);
    char *slash = strrchr(out, '/');
    if (slash) {
        *slash = 0;
    }
}

/* --- power cut */

/* 0: undo everything, 1: undo nothing, else: decide for each change. */
static int mode;

static int dropped(void)
{
    return mode == 0 || (mode > 1 && random_below(2));
}

static void put_back(struct file *file, const struct undo *undo, off_t at, size_t len)
{
    static const char zeros[SECTOR];
    const char *old = undo->old ? undo->old + (at - undo->at) : zeros;
    if (real_pwrite(file->fd, old, len, at) != (ssize_t)len) {
        die("undo");
    }
}

/* Undoes a random number of the newest writes to each sector, so that one of its versions since the last sync remains. */
static void undo_writes(struct file *file)
{
    off_t end = 0;
    for (struct undo *undo = file->newest; undo; undo = undo->older) {
        end = undo->at + (off_t)undo->len > end ? undo->at + (off_t)undo->len : end;
    }
    char *settled = calloc(end / SECTOR + 1, 1);
    if (!settled) {
        die("memory");
    }
    for (struct undo *undo = file->newest; undo; undo = undo->older) {
        off_t at = undo->at;
        while (at < undo->at + (off_t)undo->len) {
            off_t sector = at / SECTOR;
            off_t until = (sector + 1) * SECTOR;
            if (until > undo->at + (off_t)undo->len) {
                until = undo->at + undo->len;
            }
            if (!settled[sector]) {
                if (dropped()) {
                    put_back(file, undo, at, until - at);
                } else {
                    settled[sector] = 1;
                }
            }
            at = until;
        }
    }
    free(settled);
    struct stat now;
    if (fstat(file->fd, &now)) {
        die("fstat");
    }
    if (now.st_size > file->durable && dropped()) {
        off_t size = file->durable;
        if (random_below(2)) {
            size += random_below(now.st_size - file->durable + 1);
        }
        if (ftruncate(file->fd, size)) {
            die("ftruncate");
        }
    }
}

static void undo_name(const struct name *name)
{
    struct stat found;
    switch (name->kind) {
    case CREATED:
        if (!lstat(name->path, &found) && found.st_ino == name->ino) {
            real_unlink(name->path);
        }
        break;
    case UNLINKED:
        if (lstat(name->path, &found)) {
            real_rename(name->aside, name->path);
        }
        break;
    case RENAMED:
        if (!lstat(name->path, &found) && found.st_ino == name->ino) {
            real_rename(name->path, name->from);
            if (name->aside[0]) {
                real_rename(name->aside, name->path);
            }
        }
        break;
    }
}

/* Index files are never synced: the kernel may have written any of their pages back at any time. */
static void scramble_indexes(const char *path)
{
    DIR *open = opendir(path);
    if (!open) {
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(open))) {
        char inside[PATH_MAX];
        if (entry->d_name[0] == '.' && strncmp(entry->d_name, ".new-", 5)) {
            continue;
        }
        if (snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name) >= (int)sizeof inside) {
            continue;
        }
        struct stat found;
        if (lstat(inside, &found)) {
            continue;
        }
        if (S_ISDIR(found.st_mode)) {
            scramble_indexes(inside);
            continue;
        }
        size_t len = strlen(inside);
        if (len < 4 || strcmp(inside + len - 4, ".idx") || random_below(3)) {
            continue;
        }
        int fd = real_open(inside, O_RDWR);
        char page[4096];
        for (off_t at = 0; fd >= 0 && at < found.st_size; at += sizeof page) {
            if (random_below(2)) {
                continue;
            }
            int zeros = random_below(2);
            for (size_t i = 0; i < sizeof page; i++) {
                page[i] = zeros ? 0 : (char)random_below(256);
            }
            size_t n = found.st_size - at < (off_t)sizeof page ? (size_t)(found.st_size - at) : sizeof page;
            if (real_pwrite(fd, page, n, at) < 0) {
                die("scramble");
            }
        }
        if (fd >= 0) {
            if (!random_below(8) && ftruncate(fd, random_below(found.st_size + 1))) {
                die("ftruncate");
            }
            real_close(fd);
        }
    }
    closedir(open);
}

static void block_forever(int signal)
{
    for (;;) {
        pause();
    }
    (void)signal;
}

/* Keeps the lock forever, so that no other thread changes a file or learns the result of a sync. */
__attribute__((noreturn)) static void cut(void)
{
    mode = (int)random_below(4);
    /* Another thread may read a mapped index while it is truncated: it must not crash before the cut is complete. */
    signal(SIGBUS, block_forever);
    fprintf(stderr, "shim: power cut at operation %llu, mode %d\n", (unsigned long long)ops, mode);
    for (struct file *file = files; file; file = file->next) {
        undo_writes(file);
    }
    for (struct name *name = names; name; name = name->older) {
        if (dropped()) {
            undo_name(name);
        }
    }
    scramble_indexes(dir);
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

/* Counts an operation before it runs, and cuts the power if its turn has come. Needs the lock. */
static void step(void)
{
    ops++;
    if (cut_ops && ops >= cut_ops) {
        cut();
    }
}

/* Reads and applies the control file if it exists. Needs the lock. */
static void read_control(void)
{
    int fd = real_open(control, O_RDONLY);
    if (fd < 0) {
        return;
    }
    char text[512], verb[32], word[256];
    ssize_t n = read(fd, text, sizeof text - 1);
    real_close(fd);
    real_unlink(control);
    text[n < 0 ? 0 : n] = 0;
    if (sscanf(text, "%31s %255s", verb, word) != 2) {
        die(text);
    }
    if (!strcmp(verb, "cut")) {
        rng = strtoull(word, NULL, 10);
        cut();
    } else if (!strcmp(verb, "write-error")) {
        strcpy(write_error, word);
    } else if (!strcmp(verb, "read-error")) {
        char *block = strchr(word, '@');
        if (!block) {
            die("read-error");
        }
        *block = 0;
        bad_block = strtoll(block + 1, NULL, 10) * 4096;
        strcpy(read_error, word);
    } else if (!strcmp(verb, "write-full")) {
        strcpy(write_full, word);
    } else if (!strcmp(verb, "sync-error")) {
        strcpy(sync_error, word);
    } else if (!strcmp(verb, "sync-hang")) {
        strcpy(sync_hang, word);
    } else if (!strcmp(verb, "sync-slow")) {
        sync_slow = strtoll(word, NULL, 10);
    } else if (!strcmp(verb, "clock")) {
        clock_ahead = strtoll(word, NULL, 10);
    } else {
        die(verb);
    }
}

static void *watch(void *unused)
{
    for (;;) {
        usleep(2000);
        pthread_mutex_lock(&lock);
        read_control();
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    if (!real_clock_gettime) {
        real_clock_gettime = find("clock_gettime");
    }
    int result = real_clock_gettime(id, at);
    if (!result && id == CLOCK_REALTIME) {
        at->tv_sec += clock_ahead;
    }
    return result;
}

static int matches(const char *pattern, const char *path)
{
    return pattern[0] && strstr(path, pattern);
}

/* --- names */

static struct name *new_name(enum kind kind, const char *path, ino_t ino)
{
    struct name *name = calloc(1, sizeof *name);
    if (!name || strlen(path) >= PATH_MAX) {
        die("memory");
    }
    name->kind = kind;
    name->seq = ++seq;
    name->ino = ino;
    strcpy(name->path, path);
    name->older = names;
    names = name;
    return name;
}

static void put_aside(struct name *name)
{
    if (snprintf(name->aside, PATH_MAX, "%s/%d-%llu", grave, (int)getpid(), (unsigned long long)++graves) >= PATH_MAX) {
        die("path");
    }
}

/* Forgets the changes to a directory's names up to `until`: they are synced. */
static void names_synced(const char *path, uint64_t until)
{
    struct name **at = &names;
    while (*at) {
        struct name *name = *at;
        char of[PATH_MAX];
        parent(name->path, of);
        if (name->seq > until || strcmp(of, path)) {
            at = &name->older;
            continue;
        }
        if (name->aside[0]) {
            real_unlink(name->aside);
        }
        *at = name->older;
        free(name);
    }
}

/* --- files */

static struct file *file_of(int fd, const char *path, int created)
{
    struct stat found;
    if (fstat(fd, &found)) {
        die("fstat");
    }
    for (struct file *file = files; file; file = file->next) {
        if (file->dev == found.st_dev && file->ino == found.st_ino) {
            if (!created) {
                return file;
            }
            /* The inode number of a removed file was reused. */
            file->ino = 0;
        }
    }
    struct file *file = calloc(1, sizeof *file);
    if (!file) {
        die("memory");
    }
    file->dev = found.st_dev;
    file->ino = found.st_ino;
    file->fd = fcntl(fd, F_DUPFD_CLOEXEC, FDS / 2);
    if (file->fd < 0) {
        file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 512);
    }
    if (file->fd < 0) {
        die("dup");
    }
    file->durable = created ? 0 : found.st_size;
    file->seen = file->durable;
    strcpy(file->path, path);
    file->next = files;
    files = file;
    return file;
}

static void forget(struct file *file, uint64_t until)
{
    struct undo **at = &file->newest;
    while (*at) {
        struct undo *undo = *at;
        if (undo->seq > until) {
            at = &undo->older;
            continue;
        }
        *at = undo->older;
        free(undo->old);
        free(undo);
    }
}

static int do_open(const char *path, int flags, mode_t permissions)
{
    if (!ours(path)) {
        return real_open(path, flags, permissions);
    }
    pthread_mutex_lock(&lock);
    int creates = flags & O_CREAT;
    struct stat before;
    int there = !creates || !lstat(path, &before);
    if (!there) {
        step();
    }
    int fd = real_open(path, flags, permissions);
    int saved = errno;
    if (fd >= 0 && fd < FDS) {
        struct stat found;
        if (fstat(fd, &found)) {
            die("fstat");
        }
        if (!there) {
            new_name(CREATED, path, found.st_ino);
        }
        open_files[fd] = NULL;
        open_dirs[fd] = NULL;
        if (S_ISDIR(found.st_mode)) {
            open_dirs[fd] = strdup(path);
        } else if ((flags & O_ACCMODE) == O_RDWR) {
            open_files[fd] = file_of(fd, path, !there);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

static mode_t permissions_of(int flags, va_list more)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t permissions = permissions_of(flags, more);
    va_end(more);
    return do_open(path, flags, permissions);
}

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t permissions = permissions_of(flags, more);
    va_end(more);
    return do_open(path, flags, permissions);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS && (open_files[fd] || open_dirs[fd])) {
        pthread_mutex_lock(&lock);
        free(open_dirs[fd]);
        open_files[fd] = NULL;
        open_dirs[fd] = NULL;
        int result = real_close(fd);
        pthread_mutex_unlock(&lock);
        return result;
    }
    return real_close(fd);
}

static ssize_t do_pwrite(int fd, const void *bytes, size_t len, off_t at)
{
    struct file *file = fd >= 0 && fd < FDS ? open_files[fd] : NULL;
    if (!file) {
        return real_pwrite(fd, bytes, len, at);
    }
    pthread_mutex_lock(&lock);
    step();
    if (matches(write_full, file->path)) {
        pthread_mutex_unlock(&lock);
        errno = ENOSPC;
        return -1;
    }
    struct undo *undo = calloc(1, sizeof *undo);
    char *old = calloc(len ? len : 1, 1);
    if (!undo || !old) {
        die("memory");
    }
    if (pread(fd, old, len, at) < 0) {
        die("pread");
    }
    size_t i = 0;
    while (i < len && !old[i]) {
        i++;
    }
    if (i == len) {
        free(old);
        old = NULL;
    }
    if (at + (off_t)len > file->seen) {
        file->seen = at + (off_t)len;
    }
    undo->seq = ++seq;
    undo->at = at;
    undo->len = len;
    undo->old = old;
    undo->older = file->newest;
    file->newest = undo;
    ssize_t result;
    if (matches(write_error, file->path)) {
        write_error[0] = 0;
        if (real_pwrite(fd, bytes, len / 2, at) < 0) {
            die("pwrite");
        }
        errno = EIO;
        result = -1;
    } else {
        result = real_pwrite(fd, bytes, len, at);
    }
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

/* Returns how many of these bytes precede the bad block, or all of them if it is not in the range. */
static size_t readable(int fd, size_t len, off_t at)
{
    if (!read_error[0] || at >= bad_block + 4096 || at + (off_t)len <= bad_block) {
        return len;
    }
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, path, sizeof path - 1);
    if (got < 0) {
        return len;
    }
    path[got] = 0;
    if (!matches(read_error, path)) {
        return len;
    }
    return at < bad_block ? (size_t)(bad_block - at) : 0;
}

/* Like the kernel, returns the bytes before the bad block, and fails the next read. */
ssize_t pread64(int fd, void *bytes, size_t len, off_t at)
{
    size_t good = readable(fd, len, at);
    if (len && !good) {
        errno = EIO;
        return -1;
    }
    return real_pread(fd, bytes, good, at);
}

/* A block that can't be read is never in the page cache. */
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    if (count != 1 || readable(fd, parts[0].iov_len, at) == parts[0].iov_len) {
        return real_preadv2(fd, parts, count, at, flags);
    }
    errno = EAGAIN;
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at)
{
    return do_pwrite(fd, bytes, len, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
    return do_pwrite(fd, bytes, len, at);
}

/* Writes part by part: a cut may happen in between. */
static ssize_t do_pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    ssize_t written = 0;
    for (int i = 0; i < count; i++) {
        ssize_t part = do_pwrite(fd, parts[i].iov_base, parts[i].iov_len, at + written);
        if (part < 0) {
            return part;
        }
        written += part;
        if ((size_t)part < parts[i].iov_len) {
            break;
        }
    }
    return written;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return do_pwritev(fd, parts, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return do_pwritev(fd, parts, count, at);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    if (fd >= 0 && fd < FDS && open_files[fd]) {
        errno = ENOSYS;
        die("write without a position to a file of the data directory");
    }
    return real_write(fd, bytes, len);
}

/* If the shim missed writes, the tests would prove nothing: after the last write that it saw there must be only zeros. */
static void check_seen(struct file *file)
{
    char bytes[4096];
    ssize_t n;
    for (off_t at = file->seen; (n = pread(file->fd, bytes, sizeof bytes, at)) > 0; at += n) {
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i]) {
                errno = ENOSYS;
                die("bytes were written by a call that the shim does not wrap");
            }
        }
    }
}

static int sync_file(struct file *file, int fd, int (*real)(int))
{
    pthread_mutex_lock(&lock);
    step();
    if (matches(sync_hang, file->path)) {
        pthread_mutex_unlock(&lock);
        fprintf(stderr, "shim: a sync hangs\n");
        for (;;) {
            pause();
        }
    }
    check_seen(file);
    uint64_t until = seq;
    struct stat now;
    if (fstat(fd, &now)) {
        die("fstat");
    }
    if (matches(sync_error, file->path)) {
        sync_error[0] = 0;
        mode = (int)random_below(4);
        fprintf(stderr, "shim: a sync fails, mode %d\n", mode);
        off_t durable = file->durable;
        file->durable = now.st_size;
        undo_writes(file);
        file->durable = durable;
        forget(file, until);
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    pthread_mutex_unlock(&lock);
    int result = real(fd);
    if (result) {
        return result;
    }
    pthread_mutex_lock(&lock);
    forget(file, until);
    if (now.st_size > file->durable) {
        file->durable = now.st_size;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static int do_sync(int fd, int (*real)(int))
{
    if (fd < 0 || fd >= FDS) {
        return real(fd);
    }
    if (sync_slow && (open_files[fd] || open_dirs[fd])) {
        usleep((useconds_t)sync_slow * 1000);
    }
    if (open_files[fd]) {
        return sync_file(open_files[fd], fd, real);
    }
    if (!open_dirs[fd]) {
        return real(fd);
    }
    pthread_mutex_lock(&lock);
    step();
    uint64_t until = seq;
    char path[PATH_MAX];
    strcpy(path, open_dirs[fd]);
    pthread_mutex_unlock(&lock);
    int result = real(fd);
    if (!result) {
        pthread_mutex_lock(&lock);
        names_synced(path, until);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int fsync(int fd)
{
    return do_sync(fd, real_fsync);
}

int fdatasync(int fd)
{
    return do_sync(fd, real_fdatasync);
}

int rename(const char *from, const char *to)
{
    struct stat found, replaced;
    if (!ours(to) || lstat(from, &found) || S_ISDIR(found.st_mode)) {
        return real_rename(from, to);
    }
    pthread_mutex_lock(&lock);
    step();
    struct name *name = new_name(RENAMED, to, found.st_ino);
    strcpy(name->from, from);
    if (!lstat(to, &replaced)) {
        put_aside(name);
        if (link(to, name->aside)) {
            die("link");
        }
    }
    int result = real_rename(from, to);
    if (result) {
        die("rename");
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    struct stat found;
    if (!ours(path) || lstat(path, &found)) {
        return real_unlink(path);
    }
    pthread_mutex_lock(&lock);
    step();
    struct name *name = new_name(UNLINKED, path, found.st_ino);
    put_aside(name);
    int result = real_rename(path, name->aside);
    if (result) {
        die("unlink");
    }
    pthread_mutex_unlock(&lock);
    return result;
}
