# The policies as azurerm wants them. Nothing here needs a provider, so that a test can read it without any.

locals {
  policies = "${path.module}/../../apim-policies"

  fragments = {
    for file in fileset(local.policies, "fragments/*.xml") : trimsuffix(basename(file), ".xml") => file("${local.policies}/${file}")
  }
  api_policy = "<policies>\n${join("", [
    for section in ["inbound", "backend", "outbound", "on-error"] : file("${local.policies}/${section}-policy.xml")
  ])}</policies>\n"

  # The files are XML, in which the C# of expressions has its < and " escaped. azurerm sends an API's policy as rawxml only, where
  # expressions stand unescaped in double quotes (docs/adr/015-policy-format.md). A test reads the files back from this.
  raw_policies = {
    for name, document in merge(local.fragments, { openai = local.api_policy }) : name =>
    replace(replace(replace(replace(replace(replace(document,
      "/([A-Za-z-]+)='([^'<]*)'/", "$1=\"$2\""),
      "&lt;", "<"), "&gt;", ">"), "&quot;", "\""), "&apos;", "'"), "&amp;", "&"
    )
  }
}
