// The account, what is kept in it and for how long, and the topic that tells of its blobs.
param location string
param tags object
param accountName string
param topicName string
param redundancy string
param inputContainers string[]
param filesContainer string
param resultsContainer string
param stateContainer string
param deploymentContainer string
param privateNetwork bool
param keepInputDays int
param keepResultDays int
param locked bool

var deadLetterContainer = 'event-dead-letters'
var containers = union(inputContainers, [
  filesContainer
  resultsContainer
  stateContainer
  deploymentContainer
  deadLetterContainer
])

// A completion window has 30 days at most, in which a job reads its input and its staged results.
var inputDays = max(keepInputDays, 31)
var resultDays = max(keepResultDays, 31)

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: redundancy }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: 'Enabled'
    // Event Grid writes its dead letters as a trusted service: no other caller passes from outside.
    networkAcls: {
      defaultAction: privateNetwork ? 'Deny' : 'Allow'
      bypass: 'AzureServices'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: account
  name: 'default'
  properties: {
    // Small documents are replaced every second or so: each would leave a version behind.
    isVersioningEnabled: false
    deleteRetentionPolicy: { enabled: false }
    containerDeleteRetentionPolicy: { enabled: true, days: 7 }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = [
  for name in containers: {
    parent: blobs
    name: name
    properties: { publicAccess: 'None' }
  }
]

// Without its record in the state container a nightly file that still stands would run again, so
// records outlive inputs. Nothing here touches the quota's ledger or the deployed package.
resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-06-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'inputs'
          type: 'Lifecycle'
          enabled: keepInputDays > 0
          definition: {
            filters: {
              blobTypes: ['blockBlob', 'appendBlob']
              prefixMatch: map(inputContainers, name => '${name}/')
            }
            actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: inputDays } } }
          }
        }
        {
          name: 'results'
          type: 'Lifecycle'
          enabled: keepResultDays > 0
          definition: {
            filters: {
              blobTypes: ['blockBlob', 'appendBlob']
              prefixMatch: ['${resultsContainer}/']
            }
            actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: resultDays } } }
          }
        }
        {
          name: 'state-of-jobs'
          type: 'Lifecycle'
          enabled: keepInputDays > 0
          definition: {
            filters: {
              blobTypes: ['blockBlob', 'appendBlob']
              prefixMatch: ['${stateContainer}/jobs/']
            }
            actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: inputDays + 31 } } }
          }
        }
      ]
    }
  }
}

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (locked) {
  scope: account
  name: 'keep'
  properties: {
    level: 'CanNotDelete'
    notes: 'Inputs, results and the state of jobs. Remove this lock before azd down.'
  }
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: topicName
  location: location
  tags: tags
  identity: { type: 'SystemAssigned' }
  properties: {
    source: account.id
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

output accountName string = account.name
output accountId string = account.id
output blobEndpoint string = account.properties.primaryEndpoints.blob
output queueEndpoint string = account.properties.primaryEndpoints.queue
output deadLetterContainer string = deadLetterContainer
output topicName string = topic.name
output topicId string = topic.id
output topicPrincipalId string = topic.identity.principalId
