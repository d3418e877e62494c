// SPDX-License-Identifier: Apache-2.0
// Checks by HTTPS against a TLS server of OpenSSL's, with certificates made here.
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>

#include "tests/unit/health/one_check.hpp"

namespace sluice::health {
namespace {

using namespace std::chrono_literals;
using model::health_kind;
using test::one_check;
using test::target_of;

using key_ptr = std::unique_ptr<EVP_PKEY, decltype(&::EVP_PKEY_free)>;
using certificate_ptr = std::unique_ptr<X509, decltype(&::X509_free)>;

struct identity {
  key_ptr key{nullptr, &::EVP_PKEY_free};
  certificate_ptr certificate{nullptr, &::X509_free};
};

// make_identity() is a certificate for some names ("DNS:a,IP:1.2.3.4"), signed by `by`, or by
// itself. valid: seconds from now.
identity make_identity(const char* name, const char* names, long valid, const identity* by) {
  identity out;
  out.key.reset(::EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  out.certificate.reset(::X509_new());
  X509* const c = out.certificate.get();
  ::X509_set_version(c, 2);
  static std::atomic<long> serial{1};
  ::ASN1_INTEGER_set(::X509_get_serialNumber(c), ++serial);
  ::X509_gmtime_adj(::X509_getm_notBefore(c), -86400);
  ::X509_gmtime_adj(::X509_getm_notAfter(c), valid);
  ::X509_set_pubkey(c, out.key.get());
  ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(c), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  const identity& signer = by ? *by : out;
  ::X509_set_issuer_name(c, ::X509_get_subject_name(signer.certificate.get()));
  X509V3_CTX context{};
  ::X509V3_set_ctx(&context, signer.certificate.get(), c, nullptr, nullptr, 0);
  const auto extend = [&](int nid, const char* value) {
    X509_EXTENSION* const e = ::X509V3_EXT_conf_nid(nullptr, &context, nid, value);
    ::X509_add_ext(c, e, -1);
    ::X509_EXTENSION_free(e);
  };
  extend(NID_basic_constraints, by ? "critical,CA:FALSE" : "critical,CA:TRUE");
  if (names) extend(NID_subject_alt_name, names);
  ::X509_sign(c, signer.key.get(), ::EVP_sha256());
  return out;
}

// A server on a thread of its own: a TLS handshake, a request, an answer, the next one.
class tls_server {
 public:
  tls_server(const identity& who, std::string answer)
      : answer_{std::move(answer)}, listener_{test::address("127.0.0.1")} {
    context_.reset(::SSL_CTX_new(::TLS_server_method()));
    ::SSL_CTX_use_certificate(context_.get(), who.certificate.get());
    ::SSL_CTX_use_PrivateKey(context_.get(), who.key.get());
    thread_ = std::thread{[this] { run(); }};
  }
  ~tls_server() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const { return listener_.port(); }
  std::string name() {
    const std::lock_guard lock{mutex_};
    return name_;
  }

 private:
  void run() {
    while (!stop_) {
      pollfd ready{listener_.fd(), POLLIN, 0};
      if (::poll(&ready, 1, 20) <= 0) continue;
      const int fd = ::accept(listener_.fd(), nullptr, nullptr);
      if (fd < 0) continue;
      const timeval limit{2, 0};
      ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      SSL* const ssl = ::SSL_new(context_.get());
      ::SSL_set_fd(ssl, fd);
      if (::SSL_accept(ssl) == 1) {
        {
          const std::lock_guard lock{mutex_};
          const char* const asked = ::SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
          name_ = asked ? asked : "";
        }
        char buffer[4096];
        if (::SSL_read(ssl, buffer, sizeof buffer) > 0)
          ::SSL_write(ssl, answer_.data(), static_cast<int>(answer_.size()));
        char rest;
        ::SSL_read(ssl, &rest, 1);  // until the client goes
      }
      ::ERR_clear_error();
      ::SSL_free(ssl);
      ::close(fd);
    }
  }

  std::unique_ptr<SSL_CTX, decltype(&::SSL_CTX_free)> context_{nullptr, &::SSL_CTX_free};
  std::string answer_;
  test::listener listener_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::string name_;
  std::thread thread_;
};

class health_tls : public ::testing::Test {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);  // of the server's
    char directory[] = "/tmp/tls_test.XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    directory_ = directory;
    ca_file_ = directory_ + "/ca.pem";
    save(authority_, ca_file_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  static void save(const identity& who, const std::string& file) {
    std::FILE* const f = std::fopen(file.c_str(), "w");
    ::PEM_write_X509(f, who.certificate.get());
    std::fclose(f);
  }
  identity server_identity(const char* names, long valid = 86400) {
    return make_identity("backend", names, valid, &authority_);
  }
  target https(std::uint16_t port) {
    target t = target_of(health_kind::https, port);
    t.check.ca_file = ca_file_;
    t.check.host = "www.example.net";
    return t;
  }

  const std::string ok_{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
  identity authority_ = make_identity("authority", nullptr, 86400, nullptr);
  std::string directory_;
  std::string ca_file_;
};

TEST_F(health_tls, a_good_server_is_up) {
  one_check one;
  tls_server server{server_identity("DNS:www.example.net,IP:127.0.0.1"), ok_};
  target t = https(server.port());
  verdict v = one.first(t);
  EXPECT_TRUE(v.up) << v.reason;
  EXPECT_EQ(v.reason, "HTTP 200");
  EXPECT_EQ(server.name(), "www.example.net");
  t.check.host = "www.example.net:8443";
  EXPECT_EQ(one.first(t).reason, "HTTP 200");
  t.check.host.clear();  // then the address is what the certificate has to be of
  EXPECT_EQ(one.first(t).reason, "HTTP 200");
  EXPECT_EQ(server.name(), "");
  t.check.sni = "www.example.net";
  EXPECT_EQ(one.first(t).reason, "HTTP 200");
  EXPECT_EQ(server.name(), "www.example.net");
}

TEST_F(health_tls, a_status_that_is_not_expected_is_down) {
  one_check one;
  tls_server server{server_identity("DNS:www.example.net"), "HTTP/1.1 503 x\r\n\r\n"};
  const verdict v = one.first(https(server.port()));
  EXPECT_FALSE(v.up);
  EXPECT_EQ(v.reason, "HTTP 503");
}

TEST_F(health_tls, certificates_are_looked_at) {
  one_check one;
  {
    tls_server server{server_identity("DNS:www.example.net", -60), ok_};
    target t = https(server.port());
    EXPECT_EQ(one.first(t).reason, "certificate: certificate has expired");
    t.check.verify = false;
    t.check = model::without_unused(t.check);
    EXPECT_EQ(one.first(t).reason, "HTTP 200");
  }
  {
    tls_server server{server_identity("DNS:other.example.net,IP:127.0.0.2"), ok_};
    target t = https(server.port());
    EXPECT_EQ(one.first(t).reason, "certificate: hostname mismatch");
    t.check.host.clear();
    EXPECT_EQ(one.first(t).reason, "certificate: IP address mismatch");
    t.check.verify = false;
    t.check = model::without_unused(t.check);
    EXPECT_EQ(one.first(t).reason, "HTTP 200");
  }
  {
    tls_server server{make_identity("www.example.net", "DNS:www.example.net", 86400, nullptr), ok_};
    EXPECT_EQ(one.first(https(server.port())).reason, "certificate: self-signed certificate");
  }
}

TEST_F(health_tls, a_file_of_authorities_is_read_again) {
  event_loop loop;
  tls_server server{server_identity("DNS:www.example.net"), ok_};
  std::vector<verdict> told;
  health_checker checker{loop, [&](const auto&, const verdict& v) {
                           told.push_back(v);
                           loop.stop();
                         }};
  const identity other = make_identity("other", nullptr, 86400, nullptr);
  save(other, ca_file_);
  target t = https(server.port());
  t.check.interval = 100ms;
  t.check.timeout = 100000ms;
  t.check.rise = 1;
  checker.set_targets({{t, health_state::unknown}});
  loop.run_for(2s);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_FALSE(told[0].up);
  save(authority_, ca_file_);
  loop.run_for(3s);
  ASSERT_EQ(told.size(), 2U);
  EXPECT_TRUE(told[1].up) << told[1].reason;
  one_check one;
  t.check.ca_file = directory_ + "/none.pem";
  const verdict v = one.first(t);
  EXPECT_FALSE(v.up);
  EXPECT_TRUE(v.reason.starts_with("ca-file " + t.check.ca_file)) << v.reason;
}

TEST_F(health_tls, what_is_no_tls_is_down) {
  one_check one;
  {
    test::http_server server{test::address("127.0.0.1"), ok_, test::http_server::manner::flood};
    const verdict v = one.first(https(server.port()));
    EXPECT_FALSE(v.up);
    EXPECT_TRUE(v.reason.starts_with("TLS: ") || v.reason.starts_with("timeout")) << v.reason;
  }
  {
    const test::listener server{test::address("127.0.0.1")};
    target t = https(server.port());
    t.check.timeout = 100ms;
    EXPECT_EQ(one.first(t).reason, "timeout after 100 ms in the TLS handshake");
  }
  {
    tls_server server{server_identity("DNS:www.example.net"), ok_};
    target t = https(server.port());
    t.check.kind = health_kind::http2;
    EXPECT_EQ(one.first(t).reason, "TLS: the server did not choose HTTP/2 (ALPN)");
  }
}

}  // namespace
}  // namespace sluice::health
