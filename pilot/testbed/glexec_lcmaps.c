/* The gLExec emulation's mapping by the site's real LCMAPS, as gLExec itself does it: liblcmaps is opened at run time.
 *
 * Called function and its arguments: lcmaps_return_account_from_pem(3) of LCMAPS 1.6 (header lcmaps_basic.h).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "glexec_emulation.h"

typedef int (*initialise)(char *log_file, FILE *log_stream, unsigned short log_kind);
typedef int (*run)(char *user_dn, char *pem, int mapcounter, void *request, int policy_count, char **policies, uid_t *uid,
                   gid_t **primary, int *primary_count, gid_t **secondary, int *secondary_count, char **poolindex);
typedef int (*terminate)(void);

static void *found(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL)
        finish(SITE, "liblcmaps has no %s", name);
    return symbol;
}

void map_by_lcmaps(const char *proxy, size_t size)
{
    void *library = dlopen("liblcmaps.so.0", RTLD_NOW | RTLD_GLOBAL);
    char log_file[PATH_MAX + 8], *poolindex = NULL, *policies[] = {NULL}, *pem = strndup(proxy, size);
    int primary_count = 0, secondary_count = 0;
    gid_t *primary = NULL, *secondary = NULL;
    uid_t uid = (uid_t)-1;
    const struct passwd *entry;

    if (library == NULL || pem == NULL)
        finish(SITE, "cannot open liblcmaps: %s", dlerror());
    snprintf(log_file, sizeof log_file, "%s.lcmaps", config.log);
    if (setenv("LCMAPS_DB_FILE", config.lcmaps_db, 1) != 0 || setenv("LCMAPS_LOG_FILE", log_file, 1) != 0 ||
        setenv("LCMAPS_DEBUG_LEVEL", "5", 1) != 0 || setenv("X509_CERT_DIR", config.ca_dir, 1) != 0 ||
        setenv("X509_VOMS_DIR", config.voms_dir, 1) != 0)
        finish(SITE, "cannot set up LCMAPS");
    if (((initialise)found(library, "lcmaps_init_and_logfile"))(log_file, NULL, 1) != 0)
        finish(SITE, "LCMAPS cannot start; see %s", log_file);
    if (((run)found(library, "lcmaps_run_with_pem_and_return_account"))(NULL, pem, -1, NULL, 0, policies, &uid, &primary, &primary_count,
                                                                       &secondary, &secondary_count, &poolindex) != 0)
        finish(DENIED, "LCMAPS does not map %s", clean(dn));
    ((terminate)found(library, "lcmaps_term"))();
    entry = getpwuid(uid);
    if (entry == NULL)
        finish(DENIED, "LCMAPS maps %s to uid %ld, which has no account", clean(dn), (long)uid);
    snprintf(account, sizeof account, "%s", entry->pw_name);
    free(pem);
}
