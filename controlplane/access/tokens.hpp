// SPDX-License-Identifier: Apache-2.0
// token_list: who may use the API over TCP. Any thread; not changed once made.
//
// The file has one token on each line, after what it allows:
//     read-only TOKEN
//     heartbeat TOKEN
//     admin sha256:HEX        the SHA-256 of a token, in hexadecimal
// Empty lines and what follows a # are no matter. Only hashes are kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::access {

// heartbeat: POST /v1/heartbeats, nothing else.
enum class role : std::uint8_t { read_only, heartbeat, admin };

class token_list {
 public:
  // parse() returns the tokens of a file's text, or all that is wrong with it.
  [[nodiscard]] static tl::expected<token_list, std::vector<config_error>> parse(
      std::string_view text, std::string_view file_name);
  // load() also refuses a file that others than its owner may write, or others than its
  // owner and group may read.
  [[nodiscard]] static tl::expected<token_list, std::vector<config_error>> load(
      const std::string& path);

  // find() takes as long whatever the token is, and wherever it stands.
  [[nodiscard]] std::optional<role> find(std::string_view token) const;
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

 private:
  using hash = std::array<unsigned char, 32>;
  struct entry {
    hash digest{};
    role allows{role::read_only};
  };
  [[nodiscard]] static hash hash_of(std::string_view token);

  std::vector<entry> entries_;
};

// secret_problem() says what is wrong with a file's permissions; empty: nothing.
[[nodiscard]] std::string secret_problem(const std::string& path);

}  // namespace sluice::access
