// SPDX-License-Identifier: Apache-2.0
#include "controlplane/access/tls.hpp"

#include <openssl/err.h>

#include <utility>

namespace sluice::access {
namespace {

// last_error() is OpenSSL's word for it; the queue is empty then.
std::string last_error() {
  const unsigned long code = ::ERR_peek_last_error();
  ::ERR_clear_error();
  const char* text = code != 0 ? ::ERR_reason_error_string(code) : nullptr;
  return text != nullptr ? text : "unknown error";
}

}  // namespace

tl::expected<secured, std::vector<config_error>> secure(const api_listen_config& config,
                                                        const std::string& node_file) {
  std::vector<config_error> errors;
  const auto add = [&](const char* key, std::string what) {
    errors.push_back(
        {node_file, config.line, std::string{"controlplane.api.listen."} + key, std::move(what)});
  };
  secured out;
  ::ERR_clear_error();
  out.tls = std::shared_ptr<SSL_CTX>{::SSL_CTX_new(::TLS_server_method()), ::SSL_CTX_free};
  if (!out.tls) {
    add("certificate", "OpenSSL: " + last_error());
    return tl::unexpected{std::move(errors)};
  }
  SSL_CTX* const tls = out.tls.get();
  ::SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  ::SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  ::SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
  if (::SSL_CTX_use_certificate_chain_file(tls, config.certificate.c_str()) != 1)
    add("certificate",
        config.certificate + ": cannot be used: " + last_error() + "; expected a chain in PEM");
  if (std::string why = secret_problem(config.key); !why.empty())
    add("key", config.key + ": " + why);
  else if (::SSL_CTX_use_PrivateKey_file(tls, config.key.c_str(), SSL_FILETYPE_PEM) != 1)
    add("key", config.key + ": cannot be used: " + last_error() +
                   "; expected the certificate's key in PEM, without a passphrase");
  auto tokens = token_list::load(config.tokens);
  if (tokens) {
    out.tokens = std::move(*tokens);
  } else {
    for (auto& e : tokens.error())
      if (e.line == 0)
        add("tokens", config.tokens + ": " + e.message);
      else
        errors.push_back(std::move(e));
  }
  if (!errors.empty()) return tl::unexpected{std::move(errors)};
  return out;
}

}  // namespace sluice::access
