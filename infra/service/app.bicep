// The function app and its settings.
param location string
param tags object
param planName string
param siteName string
param identityId string
param identityClientId string
param accountName string
param blobEndpoint string
param queueEndpoint string
param deploymentContainer string
param busHost string
param vaultUri string
param insightsConnection string
param subnetId string
param instanceMemory int
param maximumInstances int
param alwaysReady array
param keySettings string[]
param settings object

var connections = {
  // The account's name beside the addresses: with addresses alone some starts of the host fail.
  AzureWebJobsStorage__accountName: accountName
  AzureWebJobsStorage__blobServiceUri: blobEndpoint
  AzureWebJobsStorage__queueServiceUri: queueEndpoint
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  ServiceBusConnection__fullyQualifiedNamespace: busHost
  ServiceBusConnection__credential: 'managedidentity'
  ServiceBusConnection__clientId: identityClientId
  AZURE_CLIENT_ID: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnection
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  // Above what the OpenAI doors take, so that they refuse in words of their own.
  FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: '134217728'
  // Event Grid sends to the queue jobs, which has a lock and a dead-letter queue.
  'AzureWebJobs.prompts.Disabled': 'true'
}

// The slash at the end: without it, an older version of a secret may go on being read.
var keys = toObject(
  keySettings,
  name => name,
  name => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${toLower(replace(name, '_', '-'))}/)'
)

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource site 'Microsoft.Web/sites@2024-11-01' = {
  name: siteName
  location: location
  tags: union(tags, { 'azd-service-name': 'worker' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: { minTlsVersion: '1.2' }
    functionAppConfig: {
      runtime: { name: 'python', version: '3.12' }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${blobEndpoint}${deploymentContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemory
        maximumInstanceCount: maximumInstances
        alwaysReady: alwaysReady
        // Bodies of files have up to 100 MiB, and stand in memory more than once on their way.
        triggers: { http: { perInstanceConcurrency: 4 } }
      }
    }
  }
}

resource appSettings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'appsettings'
  properties: union(settings, connections, keys)
}

resource noPasswords 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = [
  for name in ['ftp', 'scm']: {
    parent: site
    name: name
    properties: { allow: false }
  }
]

output siteId string = site.id
output siteName string = site.name
output siteHost string = site.properties.defaultHostName
