// SPDX-License-Identifier: Apache-2.0
// What a TCP listener of the API needs before it may open: a certificate with its key, and
// tokens. Any thread; not changed once made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <openssl/ssl.h>
#include <tl/expected.hpp>

#include "controlplane/access/tokens.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::access {

struct secured {
  std::shared_ptr<SSL_CTX> tls;  // TLS 1.2 or newer
  token_list tokens;
};

// secure() reads the files that node.yaml names; the errors are at its lines.
[[nodiscard]] tl::expected<secured, std::vector<config_error>> secure(
    const api_listen_config& config, const std::string& node_file);

}  // namespace sluice::access
