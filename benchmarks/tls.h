/* TLS for the mock upstream, as a codec from memory to memory: no socket is touched here, and all else stays as it is.
 *
 * Rules: what OpenSSL has to say to the peer, the handshake's own words included, waits in `tls_unsent` until it is
 * taken. Compiled with -DTLS, which needs OpenSSL's headers; without it no connection ever has a `tls`.
 */
#ifndef TLS_H
#define TLS_H

#include "bench.h"

#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *tls_settings;

/* Reads the certificate and its key, files of PEM, before the first connection. */
static inline void tls_open(const char *certificate, const char *key) {
    tls_settings = SSL_CTX_new(TLS_server_method());
    if (tls_settings && SSL_CTX_use_certificate_chain_file(tls_settings, certificate) == 1 &&
        SSL_CTX_use_PrivateKey_file(tls_settings, key, SSL_FILETYPE_PEM) == 1)
        return;
    ERR_print_errors_fp(stderr);
    exit(1);
}

static inline SSL *tls_new(void) {
    SSL *tls = SSL_new(tls_settings);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (!tls || !in || !out) die("memory");
    SSL_set_bio(tls, in, out);
    SSL_set_accept_state(tls);
    return tls;
}

static inline void tls_free(SSL *tls) { SSL_free(tls); }

/* Takes bytes of the wire, and adds what they say to `said`; false when the peer says no more, or no TLS. */
static inline bool tls_read(SSL *tls, const char *data, size_t size, struct bytes *said) {
    char plain[16384];
    size_t count;
    ERR_clear_error();
    if (BIO_write(SSL_get_rbio(tls), data, (int)size) != (int)size) return false;
    while (SSL_read_ex(tls, plain, sizeof plain, &count)) bytes_add(said, plain, count);
    return SSL_get_error(tls, 0) == SSL_ERROR_WANT_READ;
}

static inline bool tls_write(SSL *tls, const char *data, size_t size) {
    size_t count;
    ERR_clear_error();
    return SSL_write_ex(tls, data, size, &count) && count == size;
}

/* Takes what is to be sent to the peer into `wire`. */
static inline void tls_unsent(SSL *tls, struct bytes *wire) {
    char *data;
    long size = BIO_get_mem_data(SSL_get_wbio(tls), &data);
    if (size > 0) bytes_add(wire, data, (size_t)size);
    (void)BIO_reset(SSL_get_wbio(tls));
}

#else
typedef void SSL;
static inline void tls_open(const char *certificate, const char *key) {
    fprintf(stderr, "upstream: compiled without TLS: no use for %s and %s\n", certificate, key);
    exit(2);
}
static inline SSL *tls_new(void) { return NULL; }
static inline void tls_free(SSL *tls) { (void)tls; }
static inline bool tls_read(SSL *tls, const char *data, size_t size, struct bytes *said) {
    return (void)tls, (void)data, (void)size, (void)said, false;
}
static inline bool tls_write(SSL *tls, const char *data, size_t size) {
    return (void)tls, (void)data, (void)size, false;
}
static inline void tls_unsent(SSL *tls, struct bytes *wire) { (void)tls, (void)wire; }
#endif

#endif
