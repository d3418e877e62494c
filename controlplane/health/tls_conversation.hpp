// SPDX-License-Identifier: Apache-2.0
// tls_contexts: TLS around a conversation. What checks have in common (whom to believe, which
// protocol) is kept and shared; a file of authorities is read again when it has changed.
// OpenSSL sees bytes only, no sockets. Threading: the loop's thread.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include <tl/expected.hpp>

#include "controlplane/health/conversation.hpp"

namespace sluice::health {

class tls_contexts {
 public:
  // wrap() puts TLS around `inner`; an error says what is wrong with the check itself.
  [[nodiscard]] tl::expected<std::unique_ptr<conversation>, std::string> wrap(
      const target& t, std::unique_ptr<conversation> inner, bool http2);

 private:
  struct entry {
    std::shared_ptr<SSL_CTX> context;
    std::string error;
    std::int64_t changed{};  // of the file: when, in nanoseconds
    std::chrono::steady_clock::time_point looked{};
  };
  using key = std::tuple<bool, std::string, bool>;  // verify, file of authorities, HTTP/2

  [[nodiscard]] entry& find(const key& k);

  std::map<key, entry> entries_;
};

}  // namespace sluice::health
