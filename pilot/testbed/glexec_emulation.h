/* What the parts of the gLExec emulation share. */
#ifndef GLEXEC_EMULATION_H
#define GLEXEC_EMULATION_H

#include <limits.h>
#include <stddef.h>
#include <stdio.h>

enum { CLIENT = 201, SITE = 202, DENIED = 203, COMMAND = 204, NOT_EXECUTED = 126 };

struct config {
    long caller;
    char gridmap[PATH_MAX], ca_dir[PATH_MAX], log[PATH_MAX], lcmaps_db[PATH_MAX], voms_dir[PATH_MAX];
    int linger;
};

extern struct config config;
extern char dn[1024], account[256];

const char *clean(const char *text);
void log_call(const char *result);
void finish(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
FILE *open_site_file(const char *path);

/* Each sets `account`, or finishes. */
void map_by_gridmap(void);
void map_by_lcmaps(const char *proxy, size_t size);

#endif
