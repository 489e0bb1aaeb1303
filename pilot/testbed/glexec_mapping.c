/* The gLExec emulation's own mapping: a grid-mapfile, in which accounts that start with "!" are faults.
 *
 *   !NNN          exit with code NNN              !hang     never answer             !kill   die of SIGKILL
 *   !NNNxK:NAME   exit with NNN for the first K calls of each GLEXEC_ID, then map to NAME
 *   !then:A:B     map to A in the first call of each GLEXEC_ID, to B in later ones
 *   !same         logging-only mode: execute without a switch
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "glexec_emulation.h"

static int calls_before(void)
{
    char line[8192], wanted[256];
    FILE *file = fopen(config.log, "re");
    int count = 0;
    snprintf(wanted, sizeof wanted, " id=\"%.200s\"", getenv("GLEXEC_ID") ? clean(getenv("GLEXEC_ID")) : "");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        count += strstr(line, wanted) != NULL;
    if (file != NULL)
        fclose(file);
    return count;
}

static void commit_fault(void)
{
    int code = 0, times = 0, used = 0;
    char *second;
    if (strcmp(account, "!same") == 0)
        return;
    if (strcmp(account, "!hang") == 0) {
        log_call("hang");
        for (;;)
            pause();
    }
    if (strcmp(account, "!kill") == 0) {
        log_call("kill");
        raise(SIGKILL);
    }
    if (strncmp(account, "!then:", 6) == 0 && (second = strchr(account + 6, ':')) != NULL) {
        *second = '\0';
        memmove(account, calls_before() ? second + 1 : account + 6, strlen(calls_before() ? second + 1 : account + 6) + 1);
        return;
    }
    if (sscanf(account, "!%dx%d:%n", &code, &times, &used) == 2 && used > 0) {
        if (calls_before() < times)
            finish(code, "fault %s", account);
        memmove(account, account + used, strlen(account + used) + 1);
        return;
    }
    finish(sscanf(account, "!%d", &code) == 1 ? code : SITE, "fault %s", account);
}

void map_by_gridmap(void)
{
    char line[2048], subject[1024], name[256];
    FILE *file = open_site_file(config.gridmap);

    while (strcmp(account, "-") == 0 && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, " \"%1023[^\"]\" %255s", subject, name) == 2 && strcmp(subject, dn) == 0)
            snprintf(account, sizeof account, "%s", name);
    fclose(file);
    if (strcmp(account, "-") == 0)
        finish(DENIED, "no mapping for %s", clean(dn));
    if (account[0] == '!')
        commit_fault();
}
