"""Why our verdicts differ from those of other tools: the sentences of the table."""

# Proxies
SUB_PROXY = "Globus makes a proxy below before it verifies, which the path length does not allow."
LIMITED_STICKY = "OpenSSL knows no limited proxies; for grids a limited proxy makes limited ones only."
LEGACY_ENABLED = (
    "OpenSSL refuses legacy proxies; so does Globus below an end entity with key usage. On request we accept what VOMS accepts."
)
LEGACY_LIMITED = "The VOMS library does not look at the kinds of proxies."
MIXED = "The VOMS library does not look at the kinds of proxies; RFC 3820 and legacy proxies must not be mixed."
DRAFT = "Globus and VOMS still know the proxies of the draft of RFC 3820; nothing makes them any more."
LANGUAGE = "Nobody could say what such a proxy may do (RFC 3820 section 3.8.2: a policy that is not understood is a refusal)."
POLICY_THERE = "RFC 3820 section 3.8.2 forbids a policy with this language."
INFO_CRITICAL = "RFC 3820 section 3.8: the extension is critical."
NOT_DER = "The extension is not DER; a lenient parser may read something else in it."
NEGATIVE = "RFC 3820 section 3.8.1: the path length is not negative; the tools read -1 as no limit."
STRING_TYPE = "RFC 5280 section 4.1.2.6: an issuer writes its name the same way in each certificate. VOMS refuses it, too."
SHA1 = "SHA-1 signatures can be forged."
WEAK = "RSA of less than 2048 bits is no longer safe."
CURVE = "Only the NIST curves are used in grids."
PROXY_USAGE = "RFC 3820 section 3.6; OpenSSL does not check it."
CRITICAL = "An extension that is critical and not understood is a refusal (RFC 5280 section 4.2)."

MD5 = "MD5 signatures can be forged."
PURPOSE = "RFC 5280 section 4.2.1.12; these tools do not ask for a purpose, servers that see the proxy do."

# End entities
WIDE = "The one-line form prints such a value byte by byte, so that it could look like another one (RFC 5280 section 4.1.2.4)."
SERIAL = "RFC 5280 section 4.1.2.2: a serial number is positive."
BACKSLASH = "The one-line form cannot tell this name from an escape, so that two owners would look the same."
POLICY = "OpenSSL does not read signing policies."
CASE = "We compare names exactly; Globus ignores case."
LIKE_A_PROXY = "A name like that of a legacy proxy above the proxies would let a certificate pass for a proxy, or the other way round."
ENTITY_CA = "An authority does not make proxies (RFC 3820 section 3.1)."
GLOBUS_CRITICAL = "Globus does not know this extension as a critical one; RFC 5280 allows it."
GLOBUS_EC = "Globus makes its proxy below with RSA only."

# Revocation lists
NO_LIST = "Globus goes on without a revocation list, and takes one that it cannot use for none; by default we do not."
LENIENT = "On request we go on without a revocation list, as Globus does."
PARTIAL = "The list does not tell everything (RFC 5280 section 5.2); Globus takes it for none."
WRITABLE = "What everybody can write proves nothing; the tools do not look."
OLDER_LIST = "A certificate that any list of its authority names stays refused; the tools look at one list only."

# Policies
POLICY_ABSENT = "OpenSSL does not read signing policies; Globus demands one, as we do."
QUOTES = "What stands between or behind the quotes means nothing; Globus guesses."
NAMESPACES = "Neither OpenSSL nor Globus reads namespaces files; where there is one, we obey it."
TWO_RIGHTS = "OpenSSL does not read signing policies; Globus crashes."

# Roots
TWINS = "Globus takes the first authority of a name; we follow the key identifier, as OpenSSL does."
NO_CA_FLAG = "The tools take key usage for an answer where basic constraints are missing; RFC 5280 section 4.2.1.9 demands them."
CRL_SIGN = "RFC 5280 section 4.2.1.3; Globus does not check it."
CONSTRAINTS = "We do not evaluate name constraints, so they are a refusal; signing policies do that job in grids."
CA_PURPOSE = "We do not evaluate what an authority may sign certificates for, so a critical extension that says it is a refusal."

# Files
INFO_BLIND = "`grid-proxy-info` looks at the first certificate only."
TWO_KEYS = "The tools take the first key that they find."
NO_PROXY = "A certificate itself must not leave its owner; the tools verify it like any other."
WRONG_ORDER = "The tools take any first certificate; a proxy behind its end entity proves nothing."
DER_BEHIND = "The tools stop at the end of the certificate and do not see what is behind it."
OTHER_BLOCK = "What is not expected in a proxy file is a sign that it is none."
SIZE = "Inputs have limits."
LINK = "The tools follow links; we open what was named, so that nobody changes the target between check and use."

# Attribute certificates
AC_VERSION = "RFC 5755 section 4.2.1: version 2."
AC_ALGORITHMS = "RFC 5755 section 4.2.4: both fields name the same algorithm."
AC_SERIAL = "RFC 5755 section 4.2.5: a positive number of at most 20 bytes."
AC_SKEW = "VOMS tolerates five minutes after the end; we tolerate them before the begin only."
TRAILING_AC = "What stands behind the attribute certificates is signed as well but means nothing."
AC_MANY = "Inputs have limits."
FQAN_SYNTAX = "No FQAN holds blanks or line feeds; they forge lines in logs."
FQAN_NONE = "Attributes without any attribute prove nothing."
PORT = "There is no such port."
NO_REV_CONTENT = "RFC 5755 section 4.3.6: the value is NULL."
AC_TWICE = "RFC 5280 section 4.2: an extension stands there once."
SERVER_CA = "An authority is no VOMS server."
SERVER_USAGE = "RFC 5755 section 4.5: the key usage allows signatures."
LSC_LONGER = "The whole chain of the file must fit; VOMS compares the first two names."
