// SPDX-License-Identifier: Apache-2.0
#include "controlplane/health/tls_conversation.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <string_view>
#include <utility>

namespace sluice::health {
namespace {

using ssl_ptr = std::unique_ptr<SSL, decltype(&::SSL_free)>;

constexpr auto look_again_after = std::chrono::seconds{1};
// A server's half of a handshake is a few KiB; more than this is no server.
constexpr std::size_t most_bytes = 512 * 1024;

std::string library_error() {
  const unsigned long code = ::ERR_get_error();
  const char* reason = code == 0 ? nullptr : ::ERR_reason_error_string(code);
  return reason == nullptr ? "unknown" : reason;
}

// an_address() reads a literal, in brackets or not; false: a name.
bool an_address(std::string_view host, ip_address& out) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string text{host};
  std::array<std::uint8_t, 4> v4{};
  std::array<std::uint8_t, 16> v6{};
  if (::inet_pton(AF_INET, text.c_str(), v4.data()) == 1) {
    out = ip_address::v4(v4);
    return true;
  }
  if (::inet_pton(AF_INET6, text.c_str(), v6.data()) == 1) {
    out = ip_address::v6(v6);
    return true;
  }
  return false;
}

std::string without_port(const std::string& host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  const std::size_t colon = host.find(':');
  // Two of them: an address of IPv6 without brackets.
  return colon == host.rfind(':') ? host.substr(0, colon) : host;
}

class tls_conversation final : public conversation {
 public:
  tls_conversation(ssl_ptr ssl, std::unique_ptr<conversation> inner, bool http2)
      : ssl_{std::move(ssl)}, inner_{std::move(inner)}, http2_{http2} {}

  std::optional<probe_result> begin() override { return handshake(); }

  std::string take_output() override {
    std::string out;
    BIO* const from = ::SSL_get_wbio(ssl_.get());
    std::array<char, 4096> piece;
    for (int n; (n = ::BIO_read(from, piece.data(), static_cast<int>(piece.size()))) > 0;)
      out.append(piece.data(), static_cast<std::size_t>(n));
    return out;
  }

  std::optional<probe_result> feed(std::string_view bytes) override {
    total_ += bytes.size();
    if (total_ > most_bytes) return failed("bad response: too many bytes");
    ::BIO_write(::SSL_get_rbio(ssl_.get()), bytes.data(), static_cast<int>(bytes.size()));
    if (!open_) {
      if (auto result = handshake(); result || !open_) return result;
    }
    return read();
  }

  probe_result closed() override {
    return open_ ? inner_->closed() : failed("connection closed within the TLS handshake");
  }

  std::string waiting() const override {
    return open_ ? inner_->waiting() : " in the TLS handshake";
  }

 private:
  std::optional<probe_result> handshake() {
    ::ERR_clear_error();
    const int done = ::SSL_do_handshake(ssl_.get());
    if (done != 1) {
      if (::SSL_get_error(ssl_.get(), done) == SSL_ERROR_WANT_READ) return std::nullopt;
      const long verified = ::SSL_get_verify_result(ssl_.get());
      if (::SSL_get_verify_mode(ssl_.get()) != SSL_VERIFY_NONE && verified != X509_V_OK)
        return failed(std::string{"certificate: "} + ::X509_verify_cert_error_string(verified));
      return failed("TLS: " + library_error());
    }
    if (http2_) {
      const unsigned char* chosen = nullptr;
      unsigned length = 0;
      ::SSL_get0_alpn_selected(ssl_.get(), &chosen, &length);
      if (length != 2 || std::memcmp(chosen, "h2", 2) != 0)
        return failed("TLS: the server did not choose HTTP/2 (ALPN)");
    }
    open_ = true;
    if (auto result = inner_->begin()) return result;
    return write();
  }

  std::optional<probe_result> read() {
    std::array<char, 16384> buffer;
    while (true) {
      ::ERR_clear_error();
      const int n = ::SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
      if (n <= 0) {
        switch (::SSL_get_error(ssl_.get(), n)) {
          case SSL_ERROR_WANT_READ:
            return write();
          case SSL_ERROR_ZERO_RETURN:
            return inner_->closed();
          default:
            return failed("TLS: " + library_error());
        }
      }
      if (auto result = inner_->feed({buffer.data(), static_cast<std::size_t>(n)})) return result;
    }
  }

  std::optional<probe_result> write() {
    for (std::string out; !(out = inner_->take_output()).empty();) {
      ::ERR_clear_error();
      if (::SSL_write(ssl_.get(), out.data(), static_cast<int>(out.size())) <= 0)
        return failed("TLS: " + library_error());
    }
    return std::nullopt;
  }

  ssl_ptr ssl_;
  std::unique_ptr<conversation> inner_;
  const bool http2_;
  bool open_{false};
  std::size_t total_{0};
};

// change_time() is when a file changed; 0: there is none.
std::int64_t change_time(const std::string& file) {
  struct stat s {};
  if (file.empty() || ::stat(file.c_str(), &s) != 0) return 0;
  return std::int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec + 1;
}

std::shared_ptr<SSL_CTX> make_context(bool verify, const std::string& file, bool http2,
                                      std::string& error) {
  std::shared_ptr<SSL_CTX> context{::SSL_CTX_new(::TLS_client_method()), ::SSL_CTX_free};
  if (!context) {
    error = "TLS: " + library_error();
    return nullptr;
  }
  SSL_CTX* const c = context.get();
  ::SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  // Whether it can be talked to is the question: old servers may speak as they do.
  ::SSL_CTX_set_min_proto_version(c, TLS1_VERSION);
  ::SSL_CTX_set_security_level(c, verify ? 1 : 0);
  ::SSL_CTX_set_verify(c, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  static constexpr unsigned char h2[] = {2, 'h', '2'};
  static constexpr unsigned char http1[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  if (http2)
    ::SSL_CTX_set_alpn_protos(c, h2, sizeof h2);
  else
    ::SSL_CTX_set_alpn_protos(c, http1, sizeof http1);
  ::ERR_clear_error();
  if (verify && (file.empty() ? ::SSL_CTX_set_default_verify_paths(c)
                              : ::SSL_CTX_load_verify_file(c, file.c_str())) != 1) {
    error = "ca-file " + file + ": " + library_error();
    return nullptr;
  }
  return context;
}

}  // namespace

tls_contexts::entry& tls_contexts::find(const key& k) {
  const auto& [verify, file, http2] = k;
  entry& e = entries_[k];
  const auto now = std::chrono::steady_clock::now();
  const bool first = !e.context && e.error.empty();
  if (!first && (file.empty() || now - e.looked < look_again_after)) return e;
  e.looked = now;
  const std::int64_t changed = change_time(file);
  if (!first && changed == e.changed) return e;
  e.changed = changed;
  std::string error;
  auto context = make_context(verify, file, http2, error);
  // A file that is being replaced leaves what was there.
  if (context || !e.context) {
    e.context = std::move(context);
    e.error = std::move(error);
  }
  return e;
}

tl::expected<std::unique_ptr<conversation>, std::string> tls_contexts::wrap(
    const target& t, std::unique_ptr<conversation> inner, bool http2) {
  // Bounded: configurations come and go.
  if (entries_.size() > 256) entries_.clear();
  const entry& shared = find({t.check.verify, t.check.ca_file, http2});
  if (!shared.context) return tl::unexpected{shared.error};
  ssl_ptr ssl{::SSL_new(shared.context.get()), &::SSL_free};
  BIO* const in = ::BIO_new(::BIO_s_mem());
  BIO* const out = ::BIO_new(::BIO_s_mem());
  if (!ssl || in == nullptr || out == nullptr) {
    ::BIO_free(in);
    ::BIO_free(out);
    return tl::unexpected{std::string{"TLS: no memory"}};
  }
  ::SSL_set_bio(ssl.get(), in, out);
  ::SSL_set_connect_state(ssl.get());
  // Who the certificate has to be of: the name asked for, or the address.
  std::string name = t.check.sni.empty() ? without_port(t.check.host) : t.check.sni;
  ip_address address = t.address;
  if (!name.empty() && !an_address(name, address)) {
    // What SSL_set_tlsext_host_name() is, without its cast.
    ::SSL_ctrl(ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data());
    ::SSL_set1_host(ssl.get(), name.c_str());
  } else {
    const std::size_t skip = address.is_v4() ? 12 : 0;
    ::X509_VERIFY_PARAM_set1_ip(::SSL_get0_param(ssl.get()), address.bytes.data() + skip,
                                address.bytes.size() - skip);
  }
  return std::make_unique<tls_conversation>(std::move(ssl), std::move(inner), http2);
}

}  // namespace sluice::health
