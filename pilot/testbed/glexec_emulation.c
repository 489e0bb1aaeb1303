/* A gLExec for tests: a set-uid root program that checks a proxy, maps its DN through a grid-mapfile, and truly changes uid.
 *
 * It follows the documented contract of gLExec (wiki.nikhef.nl: exit codes, proxy file handling, "need to knows"); it is
 * not gLExec and holds none of its code. It serves one configured caller only. How accounts are found: glexec_mapping.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "glexec_emulation.h"

#ifndef CONFIG_PATH
#error "compile with -DCONFIG_PATH"
#endif

enum { MAX_PROXY = 1 << 20, MAX_ENV = 512, TELL = 3 };

struct config config = {-1, "", "", "", "", "", 1};
char dn[1024] = "-", account[256] = "-";
static volatile sig_atomic_t child = 0;

const char *clean(const char *text)
{
    static char out[2048];
    size_t i;
    for (i = 0; text != NULL && text[i] != '\0' && i < sizeof out - 1; i++)
        out[i] = (text[i] >= 32 && text[i] < 127 && text[i] != '"') ? text[i] : '?';
    out[i] = '\0';
    return out;
}

void log_call(const char *result)
{
    char stamp[32], line[8192];
    time_t now = time(NULL);
    struct tm parts;
    int handle, length;
    if (config.log[0] == '\0')
        return;
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &parts));
    length = snprintf(line, sizeof line, "%s pid=%ld caller=%ld id=\"%.200s\"", stamp, (long)getpid(), (long)getuid(),
                      getenv("GLEXEC_ID") ? clean(getenv("GLEXEC_ID")) : "");
    length += snprintf(line + length, sizeof line - length, " dn=\"%s\"", clean(dn));
    length += snprintf(line + length, sizeof line - length, " account=\"%s\" result=%s\n", clean(account), result);
    handle = open(config.log, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (handle < 0 || write(handle, line, length) != length)
        fprintf(stderr, "glexec: cannot write %s\n", config.log);
    if (handle >= 0)
        close(handle);
}

void finish(int code, const char *format, ...)
{
    char result[16];
    va_list arguments;

    fprintf(stderr, "glexec: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    snprintf(result, sizeof result, "%d", code);
    log_call(result);
    exit(code);
}

FILE *open_site_file(const char *path)
{
    struct stat status;
    int handle = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (handle < 0 || fstat(handle, &status) != 0 || !S_ISREG(status.st_mode) || status.st_uid != 0 || (status.st_mode & 022) != 0)
        finish(SITE, "%s is missing, not root's, or writable for others", path);
    return fdopen(handle, "r");
}

static void take(const char *key, const char *value)
{
    if (strcmp(key, "caller") == 0)
        config.caller = strtol(value, NULL, 10);
    else if (strcmp(key, "gridmapfile") == 0)
        snprintf(config.gridmap, sizeof config.gridmap, "%s", value);
    else if (strcmp(key, "cadir") == 0)
        snprintf(config.ca_dir, sizeof config.ca_dir, "%s", value);
    else if (strcmp(key, "log") == 0)
        snprintf(config.log, sizeof config.log, "%s", value);
    else if (strcmp(key, "lcmapsdb") == 0)
        snprintf(config.lcmaps_db, sizeof config.lcmaps_db, "%s", value);
    else if (strcmp(key, "vomsdir") == 0)
        snprintf(config.voms_dir, sizeof config.voms_dir, "%s", value);
    else if (strcmp(key, "linger") == 0)
        config.linger = strcmp(value, "yes") == 0;
    else
        finish(SITE, "unknown key %s in %s", key, CONFIG_PATH);
}

static void read_config(void)
{
    char line[PATH_MAX + 64], key[64], value[PATH_MAX];
    FILE *file = open_site_file(CONFIG_PATH);

    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, " %63[a-z] = %4095[^\n]", key, value) == 2)
            take(key, value);
    fclose(file);
    if (config.caller < 0 || config.gridmap[0] == '\0' || config.ca_dir[0] == '\0')
        finish(SITE, "%s is not complete", CONFIG_PATH);
}

static char *read_proxy(const char *variable, size_t *size)
{
    const char *path = getenv(variable);
    struct stat status;
    char *data;
    ssize_t count;
    int handle;
    if (path == NULL || path[0] != '/')
        finish(CLIENT, "%s is not an absolute path", variable);
    handle = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (handle < 0)
        finish(CLIENT, "%s cannot be opened: %s", variable, strerror(errno));
    if (fstat(handle, &status) != 0 || !S_ISREG(status.st_mode) || status.st_uid != getuid())
        finish(CLIENT, "%s is not a file of the caller", variable);
    if ((status.st_mode & 07777 & ~0700) != 0)
        finish(CLIENT, "%s has mode %o, 0700 is the most", variable, status.st_mode & 07777);
    if (status.st_size <= 0 || status.st_size > MAX_PROXY)
        finish(CLIENT, "%s is empty or too big", variable);
    data = malloc(status.st_size);
    count = data == NULL ? -1 : read(handle, data, status.st_size);
    if (count != status.st_size)
        finish(CLIENT, "%s cannot be read", variable);
    close(handle);
    *size = count;
    return data;
}

static STACK_OF(X509) *parse_chain(const char *data, size_t size)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(data, (int)size);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, "");
    X509 *certificate;
    BIO_free(bio);
    bio = BIO_new_mem_buf(data, (int)size);
    while ((certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
        sk_X509_push(chain, certificate);
    BIO_free(bio);
    if (key == NULL || sk_X509_num(chain) == 0 || X509_check_private_key(sk_X509_value(chain, 0), key) != 1)
        finish(CLIENT, "GLEXEC_CLIENT_CERT is not a certificate chain with its private key");
    EVP_PKEY_free(key);
    ERR_clear_error();
    if ((X509_get_extension_flags(sk_X509_value(chain, 0)) & EXFLAG_PROXY) == 0)
        finish(CLIENT, "GLEXEC_CLIENT_CERT is not a proxy");
    return chain;
}

/* Verify the chain against the CA directory with all CRLs; set `dn` to the subject of the end-entity certificate. */
static void verify(STACK_OF(X509) *chain)
{
    X509_STORE *store = X509_STORE_new();
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_hash_dir());
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *verified;
    int i;
    if (lookup == NULL || context == NULL || X509_LOOKUP_add_dir(lookup, config.ca_dir, X509_FILETYPE_PEM) != 1)
        finish(SITE, "cannot use CA directory %s", config.ca_dir);
    X509_STORE_set_flags(store, X509_V_FLAG_ALLOW_PROXY_CERTS | X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    if (X509_STORE_CTX_init(context, store, sk_X509_value(chain, 0), chain) != 1)
        finish(SITE, "cannot set up the verification");
    if (X509_verify_cert(context) != 1)
        finish(DENIED, "the proxy is not accepted: %s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
    verified = X509_STORE_CTX_get0_chain(context);
    for (i = 0; i < sk_X509_num(verified); i++)
        if ((X509_get_extension_flags(sk_X509_value(verified, i)) & EXFLAG_PROXY) == 0) {
            X509_NAME_oneline(X509_get_subject_name(sk_X509_value(verified, i)), dn, sizeof dn);
            return;
        }
    finish(DENIED, "no end-entity certificate in the chain");
}

static void switch_to(const struct passwd *target)
{
    gid_t groups[64];
    int count = 64;
    if (getgrouplist(target->pw_name, target->pw_gid, groups, &count) < 0 || setgroups(count, groups) != 0 ||
        setresgid(target->pw_gid, target->pw_gid, target->pw_gid) != 0 ||
        setresuid(target->pw_uid, target->pw_uid, target->pw_uid) != 0)
        finish(SITE, "cannot change identity: %s", strerror(errno));
    if (setuid(0) == 0 || getuid() != target->pw_uid || geteuid() != target->pw_uid)
        finish(SITE, "the change of identity is not final");
}

static void write_target_proxy(char *path, size_t room, uid_t uid, const char *data, size_t size)
{
    const char *wanted = getenv("GLEXEC_TARGET_PROXY");
    struct stat status;
    int handle;

    snprintf(path, room, "%s", wanted == NULL ? "" : wanted);
    if (wanted == NULL)
        snprintf(path, room, "/tmp/x509up_u%ld.glexec.%ld", (long)uid, (long)getpid());
    if (strcmp(path, "/dev/null") == 0) {
        path[0] = '\0';
        return;
    }
    handle = path[0] == '/' ? open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600) : -1;
    if (handle < 0 || fstat(handle, &status) != 0 || status.st_uid != uid || !S_ISREG(status.st_mode) || fchmod(handle, 0600) != 0 ||
        ftruncate(handle, 0) != 0 || write(handle, data, size) != (ssize_t)size)
        finish(CLIENT, "GLEXEC_TARGET_PROXY cannot be written");
    close(handle);
}

static char **clean_environment(const char *home, const char *proxy)
{
    extern char **environ;
    static char *kept[MAX_ENV], home_line[PATH_MAX + 8], proxy_line[PATH_MAX + 32];
    static char path_line[] = "PATH=/usr/local/bin:/usr/bin:/bin";
    int count = 0, i;

    for (i = 0; environ[i] != NULL && count < MAX_ENV - 4; i++)
        if (strncmp(environ[i], "GLEXEC_", 7) == 0)
            kept[count++] = environ[i];
    snprintf(home_line, sizeof home_line, "HOME=%s", home);
    kept[count++] = home_line;
    kept[count++] = path_line;
    if (proxy[0] != '\0') {
        snprintf(proxy_line, sizeof proxy_line, "X509_USER_PROXY=%s", proxy);
        kept[count++] = proxy_line;
    }
    kept[count] = NULL;
    return kept;
}

static void become_and_execute(const struct passwd *target, char **argv, const char *proxy, size_t size)
{
    char path[PATH_MAX], **environment;
    int code;

    if (strcmp(account, "!same") != 0)
        switch_to(target);
    else if (setresuid(getuid(), getuid(), getuid()) != 0)
        finish(SITE, "cannot give up root");
    write_target_proxy(path, sizeof path, getuid(), proxy, size);
    if (chdir(target->pw_dir) != 0 && chdir("/") != 0)
        finish(SITE, "no directory to start in");
    environment = clean_environment(target->pw_dir, path);
    closefrom(TELL + 1);
    execve(argv[1], argv + 1, environment);
    code = errno == ENOEXEC || errno == ELIBBAD ? NOT_EXECUTED : CLIENT;
    fprintf(stderr, "glexec: cannot execute %s as %s: %s\n", argv[1], target->pw_name, strerror(errno));
    if (write(TELL, &code, sizeof code) < 0) /* without linger there is nobody to tell */
        _exit(code);
    _exit(code);
}

static void forward(int number)
{
    if (child > 0)
        kill(child, number);
}

/* Stay as the parent: the caller can signal us, as our real uid is still its own. */
static int linger(int told)
{
    int status, own;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return SITE;
    if (read(told, &own, sizeof own) == sizeof own) /* the command was never executed: the code is ours */
        return own;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status) >= CLIENT && WEXITSTATUS(status) <= COMMAND ? COMMAND : WEXITSTATUS(status);
}

static void check_command(int argc, char **argv)
{
    struct stat status;

    if (argc < 2 || argv[1][0] != '/')
        finish(CLIENT, "give the absolute path of a command");
    if (lstat(argv[1], &status) != 0)
        finish(CLIENT, "%s: %s", argv[1], strerror(errno));
    if (!S_ISREG(status.st_mode))
        finish(CLIENT, "%s is not a regular file, perhaps a symbolic link", argv[1]);
}

int main(int argc, char **argv)
{
    static const int forwarded[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = forward};
    struct passwd *target;
    STACK_OF(X509) *chain;
    size_t size, i;
    char *proxy;
    pid_t pid;
    int told[2];

    if (argc == 2 && strcmp(argv[1], "-v") == 0) {
        printf("gLExec emulation of the multi-user pilot's testbed\n");
        return 0;
    }
    if (geteuid() != 0)
        finish(SITE, "not set-uid root");
    read_config();
    if ((long)getuid() != config.caller)
        finish(DENIED, "uid %ld may not call this", (long)getuid());
    check_command(argc, argv);
    proxy = read_proxy("GLEXEC_CLIENT_CERT", &size);
    chain = parse_chain(proxy, size);
    verify(chain);
    if (config.lcmaps_db[0] != '\0')
        map_by_lcmaps(proxy, size);
    else
        map_by_gridmap();
    if (getenv("GLEXEC_SOURCE_PROXY") != NULL)
        proxy = read_proxy("GLEXEC_SOURCE_PROXY", &size);
    target = strcmp(account, "!same") == 0 ? getpwuid(getuid()) : getpwnam(account);
    if (target == NULL || target->pw_uid == 0 || target->pw_gid == 0)
        finish(DENIED, "account %s does not exist or is root", clean(account));
    log_call("executed");
    closefrom(TELL);
    if (!config.linger)
        become_and_execute(target, argv, proxy, size);
    if (pipe2(told, O_CLOEXEC) != 0 || (pid = fork()) < 0)
        finish(SITE, "cannot fork: %s", strerror(errno));
    if (pid == 0) {
        if (told[1] != TELL && dup3(told[1], TELL, O_CLOEXEC) < 0)
            _exit(SITE);
        become_and_execute(target, argv, proxy, size);
    }
    close(told[1]);
    child = pid;
    for (i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++)
        sigaction(forwarded[i], &action, NULL);
    return linger(told[0]);
}
