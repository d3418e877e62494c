// SPDX-License-Identifier: Apache-2.0
// The list of calls, and the OpenAPI document beside it.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>

#include "controlplane/api/embedded.hpp"
#include "controlplane/api/routes.hpp"

namespace sluice::api {
namespace {

using call = std::pair<std::string, std::string>;

request make(std::string method, std::vector<std::string> segments) {
  request r;
  r.method = std::move(method);
  r.segments = std::move(segments);
  return r;
}

TEST(routes, are_those_of_the_document) {
  const embedded_file* file = find_embedded("openapi.json");
  ASSERT_NE(file, nullptr);
  const json document = json::parse(file->content);
  std::set<call> documented;
  for (const auto& [path, item] : document.at("paths").items())
    for (const auto& [method, operation] : item.items()) {
      if (method == "parameters") continue;
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
      documented.emplace(upper, path);
    }
  std::set<call> served;
  for (const route& r : routes()) served.emplace(r.method, r.path);
  EXPECT_EQ(served.size(), routes().size()) << "one is there twice";
  for (const auto& [method, path] : served)
    EXPECT_TRUE(documented.contains({method, path})) << method << " " << path << ": not documented";
  for (const auto& [method, path] : documented)
    EXPECT_TRUE(served.contains({method, path})) << method << " " << path << ": not served";
}

TEST(routes, what_is_no_call) {
  EXPECT_FALSE(no_route(make("GET", {"v1", "status"})));
  EXPECT_FALSE(no_route(make("PATCH", {"v1", "services", "a", "backends", "::1"})));
  for (const auto& segments :
       std::vector<std::vector<std::string>>{{},
                                             {"v1"},
                                             {"v2", "status"},
                                             {"v1", "status", "x"},
                                             {"v1", "services", "a", "b"},
                                             {"v1", "services", "a", "backends", "b", "x"},
                                             {"v1", ""},
                                             {"ui", "a", "b"}})
    EXPECT_EQ(no_route(make("GET", segments)).value().status, 404);
}

TEST(routes, says_which_methods_there_are) {
  const auto no = no_route(make("PUT", {"v1", "services", "a"}));
  ASSERT_TRUE(no);
  EXPECT_EQ(no->status, 405);
  ASSERT_EQ(no->headers.size(), 1u);
  EXPECT_EQ(no->headers[0], (std::pair<std::string, std::string>{"Allow", "GET, PATCH, DELETE"}));
  EXPECT_NE(no->body.find("PUT is not possible here; GET, PATCH or DELETE is"), std::string::npos);
}

TEST(pages, are_served_with_a_policy) {
  for (const char* name : {"", "index.html", "app.js", "style.css", "icon.svg"}) {
    std::vector<std::string> segments{"ui"};
    if (*name != '\0') segments.emplace_back(name);
    const reply answer = page(make("GET", segments));
    EXPECT_EQ(answer.status, 200) << name;
    EXPECT_GT(answer.body.size(), 100u);
    EXPECT_NE(answer.headers.at(0).second.find("default-src 'none'"), std::string::npos);
    // It works where there is no other network.
    EXPECT_EQ(answer.body.find("https://"), std::string::npos) << name;
  }
  EXPECT_EQ(page(make("GET", {"ui", "openapi.json"})).status, 404);
  EXPECT_EQ(page(make("GET", {"ui", "../app.js"})).status, 404);
}

}  // namespace
}  // namespace sluice::api
